"""lxdsched: a scheduler for fleets of LXD servers."""

__version__ = "0.1.0"
