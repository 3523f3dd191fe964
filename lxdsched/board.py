"""The fleet as a request finds it: what is known of every host, what is claimed there, and who stands best.

Pure. Changes are only noted as they come in, and worked in when somebody looks: of many between two requests, one is
work.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from random import Random

from lxdsched.model import Claims, Demand, Kind, State, View
from lxdsched.placement import fitting
from lxdsched.ranking import Ranking
from lxdsched.strategies import Strategy


class Board:
    """All hosts, in the order in which they were first seen.

    `claims` says what is claimed on a host and not seen there.
    """

    def __init__(self, claims: Callable[[str], Claims], random: Random) -> None:
        self._claims = claims
        self._random = random
        self._views: dict[str, View] = {}
        self._changed: dict[str, None] = {}
        self._rankings: dict[str, Ranking] = {}
        self._pools: dict[Kind, set[str]] = {}

    def show(self, view: View) -> None:
        """Take note of a host's view, as its own API tells it."""
        self._views[view.host] = view
        self._changed[view.host] = None

    def remove(self, host: str) -> None:
        """Forget a host. What is claimed there is not forgotten, should it come back."""
        if self._views.pop(host, None) is None:
            return
        self._changed.pop(host, None)
        for name, ranking in list(self._rankings.items()):
            try:
                ranking.remove(host)
            except ValueError:  # a strategy's keys that are in no order
                del self._rankings[name]
        self._stock(host, {})

    def touch(self, host: str) -> None:
        """Take note that something else is claimed on a host."""
        if host in self._views:
            self._changed[host] = None

    def view(self, host: str) -> View | None:
        """Say what is known of a host now."""
        self._work_in()
        return self._views.get(host)

    def views(self, targets: Collection[str] | None = None) -> Sequence[View]:
        """Say what is known of these hosts now; None means all."""
        self._work_in()
        return [view for view in self._views.values() if targets is None or view.host in targets]

    def best(self, demand: Demand, strategy: Strategy, most: int) -> Sequence[View]:
        """Find the hosts that fit and are liked best, best first.

        Those with a ready pool instance of the demanded kind come before all others, stale ones after all.
        """
        self._work_in()
        ranking = self._ranking(strategy)
        fits = fitting(demand)
        pool = demand.pool
        if pool is None:
            return ranking.best(demand, fits, most)
        stocked = self._stocked(pool)
        ready: list[View] = []
        if stocked:
            narrowed = replace(demand, targets=stocked if demand.targets is None else stocked & demand.targets)
            ready = ranking.best(
                narrowed, lambda view: view.state is not State.STALE and view.ready(pool) > 0 and fits(view), most
            )
        if len(ready) == most:
            return ready
        chosen = {view.host for view in ready}
        return ready + ranking.best(demand, lambda view: view.host not in chosen and fits(view), most - len(ready))

    def _stocked(self, pool: Kind) -> frozenset[str]:
        """Name the hosts that have pool instances of a kind, promised or not."""
        return frozenset().union(*(hosts for kind, hosts in self._pools.items() if kind.meets(pool)))

    def _ranking(self, strategy: Strategy) -> Ranking:
        ranking = self._rankings.get(strategy.name)
        if ranking is None:
            ranking = Ranking(strategy, self._random)
            for view in self._views.values():
                ranking.put(view)
            self._rankings[strategy.name] = ranking
        return ranking

    def _work_in(self) -> None:
        while self._changed:
            host = next(iter(self._changed))
            view = self._views[host]
            claims = self._claims(host)
            if view.claims != claims:
                view = self._views[host] = replace(view, claims=claims)
            for name, ranking in list(self._rankings.items()):
                try:
                    ranking.put(view)
                except Exception:  # a strategy of somebody's: whoever asks for it next hears of it, and nobody else
                    del self._rankings[name]
            self._stock(host, view.allocation.ready)
            del self._changed[host]

    def _stock(self, host: str, ready: Mapping[Kind, int]) -> None:
        for kind in [kind for kind, hosts in self._pools.items() if host in hosts and kind not in ready]:
            self._pools[kind].discard(host)
            if not self._pools[kind]:
                del self._pools[kind]
        for kind in ready:
            self._pools.setdefault(kind, set()).add(host)
