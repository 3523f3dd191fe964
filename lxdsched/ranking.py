"""The hosts in the order of a strategy, kept as they change, so that a request need not sort them.

Pure. A change of one host costs a binary search; a request looks at the hosts from the best on, and stops when it has
found enough.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from heapq import nsmallest
from itertools import count
from random import Random

from lxdsched.model import Demand, Resources, State, View
from lxdsched.strategies import Strategy, ignores_demand

Fits = Callable[[View], bool]
Place = tuple[bool, tuple[int, ...], float, int]
"""Where a host stands: stale ones last, then by the strategy's key, equals by chance; never two at the same."""

_FEW = 8
"""Below this part of the hosts, those that are meant are sorted; above, all are looked through in order."""

_NO_DEMAND = Demand(Resources())


class Ranking:
    """Hosts that may be chosen, in the order of one strategy."""

    def __init__(self, strategy: Strategy, random: Random) -> None:
        self._strategy = strategy
        self._random = random
        self._serial = count()
        self._lasting = ignores_demand(strategy)
        self._places: dict[str, Place] = {}
        self._order: list[tuple[Place, View]] = []
        self._views: dict[str, View] = {}

    def put(self, view: View) -> None:
        """Take note of a host as it is now."""
        self.remove(view.host)
        if not view.schedulable:
            return
        if self._lasting:
            place = self._place(view, _NO_DEMAND)  # a strategy may raise: nothing is kept then
            insort(self._order, (place, view), key=_first)
            self._places[view.host] = place
        self._views[view.host] = view

    def remove(self, host: str) -> None:
        """Forget a host, which need not be there."""
        if self._views.pop(host, None) is not None and self._lasting:
            at = bisect_left(self._order, self._places.pop(host), key=_first)
            if at == len(self._order) or self._order[at][1].host != host:
                raise ValueError(f"the keys of {self._strategy.name} are in no order")  # NaN is neither less nor more
            del self._order[at]

    def best(self, demand: Demand, fits: Fits, most: int) -> list[View]:
        """Find the hosts that fit and stand best, `most` of them at the most, best first."""
        targets = demand.targets
        if not self._lasting:
            fitting = filter(fits, self._among(targets))
            return [view for _, view in nsmallest(most, ((self._place(view, demand), view) for view in fitting))]
        found: list[View] = []
        for view in self._in_order(targets):
            if fits(view):
                found.append(view)
                if len(found) == most:
                    break
        return found

    def _in_order(self, targets: frozenset[str] | None) -> Iterable[View]:
        if targets is None:
            return (view for _, view in self._order)
        if len(targets) * _FEW > len(self._order):
            return (view for _, view in self._order if view.host in targets)
        return sorted(self._among(targets), key=lambda view: self._places[view.host])

    def _among(self, targets: frozenset[str] | None) -> Iterator[View]:
        if targets is None:
            return iter(self._views.values())
        return (self._views[host] for host in targets if host in self._views)

    def _place(self, view: View, demand: Demand) -> Place:
        return (view.state is State.STALE, self._strategy.key(view, demand), self._random.random(), next(self._serial))


def _first(entry: tuple[Place, View]) -> Place:
    return entry[0]
