"""The configuration: where each setting comes from, what it may be, and every fault in it, found at once.

`settings.py` is the table of all settings, `values.py` reads single values, `hosts.py` the hosts with their
certificates, `load.py` puts them together.
"""

from lxdsched.config.load import Config, ConfigError, Sources, find, load
from lxdsched.config.settings import SETTINGS, Setting

__all__ = ["SETTINGS", "Config", "ConfigError", "Setting", "Sources", "find", "load"]
