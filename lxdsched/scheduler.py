"""The use case: one demand in, one placement or refusal out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Protocol

from lxdsched.model import Demand, Placement, Refusal, View
from lxdsched.placement import decide
from lxdsched.strategies import Strategy


class Fleet(Protocol):
    """Where views of hosts come from."""

    async def views(self, targets: Collection[str] | None = None) -> Sequence[View]:
        """Return an up-to-date view of each of these hosts; None means all."""


class UnknownStrategyError(ValueError):
    """A strategy that callers may not ask for; the message names those that they may."""


class Scheduler:
    """Answers demands from the views of a fleet.

    `strategies` are those that a request may name, beside the default one; `random` breaks ties.
    """

    def __init__(self, fleet: Fleet, default: Strategy, strategies: Mapping[str, Strategy], random: Random) -> None:
        self._fleet = fleet
        self._default = default
        self._strategies = strategies
        self._random = random

    async def schedule(self, demand: Demand, strategy: str | None = None) -> Placement | Refusal:
        """Choose the host for this demand.

        Raises UnknownStrategyError for a strategy that is not allowed. Takes as long as the slowest host that is in
        the running, and at most one host's deadline.
        """
        chosen = self._strategy(strategy)
        views = await self._fleet.views(demand.targets)
        return decide(views, demand, chosen, self._random)

    def _strategy(self, name: str | None) -> Strategy:
        if name is None or name == self._default.name:
            return self._default
        if name in self._strategies:
            return self._strategies[name]
        allowed = ", ".join(sorted({self._default.name, *self._strategies}))
        raise UnknownStrategyError(f"{name!r} is not a strategy that may be asked for here; these are: {allowed}")
