"""What a ledger is: the one place where capacity is claimed, so that no two answers claim the same.

A reservation ends by the first of three: its time is up, it is given back, or its instance is seen. Seen, it claims
nothing any more, but is remembered until its time is up, so that a request which is repeated meanwhile gets its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lxdsched.model import Claims, Demand, Instance, Reservation, Resources


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host on which a demand may be claimed, as it was judged from its view.

    `room` is what the host has left beside its instances, reservations not yet taken off; `ready` counts the pool
    instances there that are of the demanded kind, promised or not.
    """

    host: str
    room: Resources
    ready: int = 0


class Ledger(Protocol):
    """Keeps reservations. Times are seconds of its own clock."""

    def claims(self, host: str) -> Claims:
        """Say what is claimed on a host now and not seen there, as far as this process knows."""

    def watch(self, changed: Callable[[str], None]) -> None:
        """Have `changed` called with a host whenever what is claimed on it changes."""

    async def find(self, request_id: str) -> Reservation | None:
        """Return the living reservation that was made under this key."""

    async def reserve(self, demand: Demand, candidates: Sequence[Candidate]) -> Reservation | None:
        """Claim the demand on the first of these hosts on which it fits beside all that is claimed there.

        To check and to claim is one step. Where a reservation lives under the demand's `request_id`, that one is
        returned and nothing claimed. None when the demand fits on no candidate any more.
        """

    def sight(self, host: str, now: Mapping[str, Instance], before: Mapping[str, Instance] | None) -> None:
        """Let the instances of a host take over its reservations, as `sight.matches` says.

        `now` are all that count there, by label, `before` those that did in the view before; None when this is the
        first one.
        """

    async def release(self, reservation_id: str) -> bool:
        """Give a reservation back. False when there is none."""

    async def reservations(self) -> Sequence[Reservation]:
        """List the living reservations, pending and seen, oldest first."""

    async def stop(self) -> None:
        """Leave no timer and no connection behind."""
