"""Tests of the fleet against simulated hosts that misbehave."""
