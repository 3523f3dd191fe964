"""Finds the strategies of third parties by Twisted's plugin system."""

from __future__ import annotations

from twisted.logger import Logger
from twisted.plugin import getPlugins
from zope.interface.verify import verifyObject

from lxdsched.strategies import BUILT_IN, IStrategy, Strategy

_log = Logger()


def strategies() -> dict[str, Strategy]:
    """Return every strategy there is by name: the built-in ones, and those found in plugins.

    A plugin that does not keep to `IStrategy`, or takes a name that is taken, is logged and left out.
    """
    found = {strategy.name: strategy for strategy in BUILT_IN}
    for plugin in getPlugins(IStrategy):
        try:
            verifyObject(IStrategy, plugin)
            name = _name(plugin)
        except Exception as error:  # whatever it does, it shall not keep the daemon from starting
            _log.error("strategy plugin {plugin} is left out: {error}", plugin=type(plugin).__name__, error=repr(error))
            continue
        if name in found:
            _log.error("strategy plugin {plugin} is left out: its name is taken", plugin=name)
            continue
        found[name] = plugin
    return found


def _name(plugin: Strategy) -> str:
    name = plugin.name
    if not isinstance(name, str) or not name or "," in name:
        raise ValueError(f"its name is {name!r}, no text without a comma")
    return name
