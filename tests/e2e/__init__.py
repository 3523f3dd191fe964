"""Tests of the whole daemon, started as people start it."""
