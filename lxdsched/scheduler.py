"""The use case: one demand in, one placement or refusal out, and what it claims kept apart from all others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Protocol

from lxdsched.board import Board
from lxdsched.ledger.book import Candidate, Ledger
from lxdsched.model import Demand, Placement, Reason, Refusal, Reservation, State, View, waiting
from lxdsched.placement import explain, refuse
from lxdsched.strategies import Strategy

MOST_ALTERNATES = 5
"""How many alternates an answer names at most: the next best, not the rest of the fleet."""


class Fleet(Protocol):
    """Where views of hosts come from."""

    def watch(self, show: Callable[[View], None], gone: Callable[[str], None]) -> None:
        """Have `show` called with every host's view now and each that changes from then on, `gone` when a host goes."""

    async def refresh(self, targets: Collection[str] | None = None) -> None:
        """Bring the views of these hosts up to date; None means all."""


class UnknownStrategyError(ValueError):
    """A strategy that callers may not ask for; the message names those that they may."""


class RepeatedRequestError(ValueError):
    """A `request_id` of this client that lives, for another demand; the message says which."""


class Scheduler:
    """Answers demands from the views of a fleet and the reservations of a ledger.

    `strategies` are those that a request may name, beside the default one; `random` breaks ties.
    """

    def __init__(
        self, fleet: Fleet, ledger: Ledger, default: Strategy, strategies: Mapping[str, Strategy], random: Random
    ) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._default = default
        self._strategies = strategies
        self._board = Board(ledger.claims, random)
        self._shown: dict[str, View] = {}
        ledger.watch(self._board.touch)
        fleet.watch(self._show, self._forget)

    @property
    def strategies(self) -> Sequence[str]:
        """The names of the strategies that a request may ask for."""
        return sorted({self._default.name, *self._strategies})

    async def schedule(
        self, demand: Demand, strategy: str | None = None, *, dry_run: bool = False
    ) -> Placement | Refusal:
        """Choose the host for this demand and claim it; in a dry run, choose and explain alone.

        Raises UnknownStrategyError for a strategy that is not allowed, RepeatedRequestError for a `request_id` that
        was used for another demand, and the ledger's LedgerUnavailableError. On fresh views it waits for nothing but
        the ledger; else for the slowest host that is in the running, and at most one host's deadline.
        """
        chosen = self._strategy(strategy)
        if not dry_run and (known := self._known(demand)) is not None:
            return known
        await self._fleet.refresh(demand.targets)
        if dry_run:
            await self._ledger.refresh()
            best = self._board.best(demand, chosen, 1 + MOST_ALTERNATES)
            return self._tried(demand, best) if best else self._refusal(demand)

        def rank() -> Sequence[Candidate]:
            return [_candidate(view, demand) for view in self._board.best(demand, chosen, 1 + MOST_ALTERNATES)]

        made = await self._ledger.reserve(demand, rank)
        return self._refusal(demand) if made is None else self._placement(made, demand)

    async def survey(self) -> Sequence[View]:
        """Say what is known of every host after bringing it up to date, reservations included."""
        await self._fleet.refresh()
        await self._ledger.refresh()
        return self._board.views()

    def snapshot(self) -> Sequence[View]:
        """Say what is known of every host, without asking any."""
        return self._board.views()

    def _show(self, view: View) -> None:
        before = self._shown.get(view.host)
        self._shown[view.host] = view
        if before is None or before.allocation is not view.allocation or before.asked_at != view.asked_at:
            members = None if before is None or before.observed_at is None else before.allocation.members
            self._ledger.sight(view.host, view.allocation.members, members, view.asked_at)
        self._board.show(view)

    def _forget(self, host: str) -> None:
        self._shown.pop(host, None)
        self._board.remove(host)

    def _refusal(self, demand: Demand) -> Refusal:
        return refuse(self._board.views(demand.targets), demand)

    def _known(self, demand: Demand) -> Placement | None:
        if (key := demand.key) is None:
            return None
        made = self._ledger.find(key)
        return None if made is None else self._placement(made, demand)

    def _placement(self, made: Reservation, demand: Demand) -> Placement:
        targets = demand.targets
        same = made.demand is not None and replace(made.demand, targets=targets) == demand
        if not same or (targets is not None and made.host not in targets):
            raise RepeatedRequestError(f"{made.request_id!r} was used for another demand, which lives until it expires")
        view = self._board.view(made.host) or View(made.host, State.UNREACHABLE)
        alternates = tuple(host for host in made.alternates if targets is None or host in targets)
        return Placement(view, alternates, made.pool is not None, made)

    def _tried(self, demand: Demand, best: Sequence[View]) -> Placement:
        first, *others = best
        pooled = demand.pool is not None and first.ready(demand.pool) > 0
        views = self._board.views(demand.targets)
        excluded = explain(views, demand)
        unknown = sum(exclusion.reason is Reason.NOT_CONFIGURED for exclusion in excluded.values())
        alternates = tuple(view.host for view in others)
        return Placement(first, alternates, pooled, hosts=len(views) + unknown, excluded=excluded)

    def _strategy(self, name: str | None) -> Strategy:
        if name is None or name == self._default.name:
            return self._default
        if name in self._strategies:
            return self._strategies[name]
        allowed = ", ".join(self.strategies)
        raise UnknownStrategyError(f"{name!r} is not a strategy that may be asked for here; these are: {allowed}")


def _candidate(view: View, demand: Demand) -> Candidate:
    room = view.free + view.claims.resources
    return Candidate(view.host, room, 0 if demand.pool is None else waiting(view.allocation.ready, demand.pool))
