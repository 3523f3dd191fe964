"""Tests of lxdsched."""
