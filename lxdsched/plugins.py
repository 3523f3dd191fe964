"""Finds the strategies of third parties by Twisted's plugin system."""

from __future__ import annotations

from twisted.logger import Logger
from twisted.plugin import getPlugins
from zope.interface.exceptions import Invalid
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
        except Invalid as error:
            _log.error("strategy plugin {plugin} is left out: {error}", plugin=repr(plugin), error=str(error))
            continue
        if plugin.name in found:
            _log.error("strategy plugin {plugin} is left out: its name is taken", plugin=plugin.name)
            continue
        found[plugin.name] = plugin
    return found
