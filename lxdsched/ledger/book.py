"""What a ledger is: the one place where capacity is claimed, so that no two answers claim the same.

A reservation ends by the first of three: its time is up, it is given back, or its instance is seen. Seen, it claims
nothing any more, but is remembered until its time is up, so that a request which is repeated meanwhile gets its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lxdsched.model import Claims, Demand, Instance, Reservation, Resources
from lxdsched.repeats import RequestKey


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host on which a demand may be claimed, as it was judged from its view.

    `room` is what the host has left beside its instances, reservations not yet taken off; `ready` counts the pool
    instances there that are of the demanded kind, promised or not.
    """

    host: str
    room: Resources
    ready: int = 0


Rank = Callable[[], Sequence[Candidate]]
"""Names the hosts on which a demand fits by what is known now, the best first."""


class LedgerUnavailableError(Exception):
    """Nothing can be claimed now, and nobody may act as if it could; the message says why."""


class Ledger(Protocol):
    """Keeps reservations. Times are seconds of this process's clock.

    A ledger that is shared with other replicas may have to do without them.
    """

    @property
    def degraded(self) -> bool:
        """Whether it should be shared and is not: what others claim is not known at the moment."""

    @property
    def settled(self) -> bool:
        """Whether that is known yet."""

    @property
    def usable(self) -> bool:
        """Whether anything may be claimed at the moment: degraded or not."""

    def start(self) -> None:
        """Begin to speak to whatever it speaks to."""

    def claims(self, host: str) -> Claims:
        """Say what is claimed on a host now and not seen there, as far as this process knows."""

    def watch(self, changed: Callable[[str], None]) -> None:
        """Have `changed` called with a host whenever what is claimed on it changes."""

    def find(self, key: RequestKey) -> Reservation | None:
        """Return the living reservation that was made under this key, as far as this process knows."""

    async def refresh(self) -> None:
        """Hear what others have claimed; returns, at the latest, when that has taken too long."""

    async def reserve(self, demand: Demand, rank: Rank) -> Reservation | None:
        """Claim the demand on the first host of `rank()` on which it fits beside all that is claimed there.

        To check and to claim is one step. Where others have claimed meanwhile, the hosts are ranked anew. Where a
        reservation lives under the demand's key, that one is returned and nothing claimed. None when the
        demand fits on no candidate. Raises LedgerUnavailableError.
        """

    def sight(
        self, host: str, now: Mapping[str, Instance], before: Mapping[str, Instance] | None, asked_at: float
    ) -> None:
        """Let the instances of a host take over its reservations, as `sight.matches` says.

        `now` are all that count there, by label, as listed on a question that was put at `asked_at`; `before` those
        that did in the view before; None when this is the first one.
        """

    async def release(self, reservation_id: str) -> bool:
        """Give a reservation back. False when there is none. Raises LedgerUnavailableError."""

    async def reservations(self) -> Sequence[Reservation]:
        """List the living reservations, pending and seen, oldest first."""

    async def stop(self) -> None:
        """Leave no timer and no connection behind."""
