"""Tests that hold on a simulated LXD and on a real one."""
