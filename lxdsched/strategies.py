"""Strategies: the order of preference among the hosts that fit.

A strategy is a name and a key. The host with the smallest key wins; where keys are equal, chance decides, so that
replicas which see the same fleet do not all run to the same host. A key is a tuple of integers: shares are in
millionths, because two hosts that are equally full must compare equal. Where a strategy says that it ignores the
demand, hosts are kept in its order instead of being sorted for each request.

Third parties add one without touching this package, by a Twisted plugin: a module in a directory `twisted/plugins`
on the Python path that holds an object providing `twisted.plugin.IPlugin` and `IStrategy`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from zope.interface import Attribute, Interface

from lxdsched.model import Demand, Resources, View

Key = tuple[int, ...]
"""How much a host is liked for a demand: the smallest is liked best."""

MILLIONTHS = 1_000_000


class Strategy(Protocol):
    """The order of preference among hosts that fit, by name."""

    @property
    def name(self) -> str:
        """What the configuration and requests call it."""

    def key(self, view: View, demand: Demand) -> Key:
        """Say how much this host is liked for this demand; the host fits and has a capacity."""


def ignores_demand(strategy: Strategy) -> bool:
    """Tell whether the strategy's key depends on the view alone; it says so by an attribute `ignores_demand`."""
    return getattr(strategy, "ignores_demand", False) is True


class IStrategy(Interface):
    """`Strategy` as Twisted's plugin system wants to find it."""

    name = Attribute("What the configuration and requests call it: a str.")

    def key(view, demand):  # type: ignore[no-untyped-def]  # noqa: N805
        """Return a tuple of ints for a `model.View` and a `model.Demand`: the smallest is liked best."""


def share(part: Resources, view: View) -> tuple[int, int]:
    """Say what share of the host's usable CPU and memory `part` is, in millionths of each."""
    usable = view.capacity.usable if view.capacity else Resources()
    return (
        part.cpu * MILLIONTHS // max(usable.cpu, 1),
        part.memory * MILLIONTHS // max(usable.memory, 1),
    )


def _dominant(view: View, demand: Demand) -> int:
    return max(share(view.claimed + demand.resources, view))


def _least_allocated(view: View, _demand: Demand) -> Key:
    return (view.claimed.cpu, *share(view.claimed, view), view.allocation.counted)


def _least_allocated_percent(view: View, _demand: Demand) -> Key:
    return (*share(view.claimed, view), view.allocation.counted)


def _balanced(view: View, demand: Demand) -> Key:
    return (_dominant(view, demand), *_least_allocated(view, demand))


def _most_allocated(view: View, _demand: Demand) -> Key:
    cpu, memory = share(view.claimed, view)
    return (-view.claimed.cpu, -cpu, -memory, -view.allocation.counted)


def _fewest_instances(view: View, demand: Demand) -> Key:
    return (view.allocation.instances, *_least_allocated(view, demand))


class BuiltIn:
    """A strategy of this package: a name and a function."""

    def __init__(self, name: str, key: Callable[[View, Demand], Key], *, ignores_demand: bool = True) -> None:
        self.name = name
        self.ignores_demand = ignores_demand
        self._key = key

    def key(self, view: View, demand: Demand) -> Key:
        """Say how much this host is liked for this demand."""
        return self._key(view, demand)

    def __repr__(self) -> str:
        return f"<strategy {self.name}>"


DEFAULT = "least-allocated"

BUILT_IN: tuple[Strategy, ...] = (
    # The fewest allocated cores, reservations included: the promise of the product.
    BuiltIn(DEFAULT, _least_allocated),
    # The smallest share of CPU: for hosts of different sizes.
    BuiltIn("least-allocated-percent", _least_allocated_percent),
    # The smallest dominant share of CPU or memory after the placement.
    BuiltIn("balanced", _balanced, ignores_demand=False),
    # Bin packing: the most allocated cores that still fit.
    BuiltIn("most-allocated", _most_allocated),
    # What an LXD cluster does itself: every instance counts as one, stopped or frozen.
    BuiltIn("fewest-instances", _fewest_instances),
)
