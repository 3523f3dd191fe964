"""The configuration: where each setting comes from, what it may be, and every fault in it, found at once.

`settings.py` is the table of all settings, `values.py` reads single values, `files.py` the files that settings name,
`pairs.py` certificates and keys in them, `hosts.py` the hosts, `redis.py` the Redis, `endpoints.py` and
`listener.py` where to listen, `guard.py` who may come in, `load.py` puts them together to what `whole.py` says.
"""

from lxdsched.config.guard import Guard
from lxdsched.config.load import ConfigError, find, load
from lxdsched.config.settings import SETTINGS, Setting
from lxdsched.config.whole import Config, Sources

__all__ = ["SETTINGS", "Config", "ConfigError", "Guard", "Setting", "Sources", "find", "load"]
