"""A ledger in this process: all there is for a daemon that works alone.

Nothing here waits for anything, so whatever is checked still holds when it is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

from twisted.internet.interfaces import IReactorTime

from lxdsched.ledger.book import Candidate, Rank
from lxdsched.ledger.picture import Picture
from lxdsched.ledger.sight import matches
from lxdsched.model import Claims, Demand, Instance, Kind, Reservation, promised
from lxdsched.repeats import RequestKey


class MemoryLedger:
    """Keeps reservations for `life` seconds each, in a `picture` that may be somebody else's too."""

    degraded = False
    settled = True
    usable = True

    def __init__(self, clock: IReactorTime, life: float, picture: Picture | None = None) -> None:
        self._clock = clock
        self._life = life
        self._picture = picture or Picture(clock)

    def start(self) -> None:
        """Do nothing: it is ready."""

    def watch(self, changed: Callable[[str], None]) -> None:
        """Have `changed` called with a host whenever what is claimed on it changes."""
        self._picture.watch(changed)

    def claims(self, host: str) -> Claims:
        """Say what is claimed on a host now and not seen there."""
        return self._picture.claims(host)

    def find(self, key: RequestKey) -> Reservation | None:
        """Return the living reservation that was made under this key."""
        return self._picture.find(key)

    async def refresh(self) -> None:
        """Do nothing: nobody else claims."""

    async def reserve(self, demand: Demand, rank: Rank) -> Reservation | None:
        """Claim the demand on the first of these hosts on which it fits beside all that is claimed there."""
        if (known := self._picture.find(demand.key)) is not None:
            return known
        candidates = rank()
        for number, candidate in enumerate(candidates, start=1):
            claims = self._picture.claims(candidate.host)
            if (candidate.room - claims.resources).covers(demand.resources):
                others = tuple(other.host for other in candidates[number:])
                return self._claim(demand, candidate.host, promise(demand, candidate, claims), others)
        return None

    def sight(
        self,
        host: str,
        now: Mapping[str, Instance],
        before: Mapping[str, Instance] | None,
        asked_at: float,  # noqa: ARG002  # what others have seen is of no interest: there are none
    ) -> None:
        """Let the instances of a host take over its reservations."""
        pending = self._picture.pending(host)
        if pending:
            for reservation_id, label in matches(pending, now, before, self._picture.tied(host)).items():
                self._picture.settle(reservation_id, label)

    async def release(self, reservation_id: str) -> bool:
        """Give a reservation back. False when there is none."""
        return self._picture.drop(reservation_id)

    async def reservations(self) -> Sequence[Reservation]:
        """List the living reservations, pending and seen, oldest first."""
        return self._picture.all()

    async def stop(self) -> None:
        """Wake up no more."""
        self._picture.stop()

    def _claim(self, demand: Demand, host: str, pool: Kind | None, others: tuple[str, ...]) -> Reservation:
        now = self._clock.seconds()
        made = Reservation(
            id=uuid4().hex,
            host=host,
            resources=demand.resources,
            created_at=now,
            expires_at=now + self._life,
            instance_name=demand.instance_name,
            request_id=demand.request_id,
            pool=pool,
            alternates=others,
            demand=replace(demand, targets=None),  # many names, and nobody asks for them again
            client=demand.client,
        )
        self._picture.add(made)
        return made


def promise(demand: Demand, candidate: Candidate, claims: Claims) -> Kind | None:
    """Say which kind of pool instance may be promised to a demand on this host."""
    ready = demand.pool is not None and candidate.ready > promised(claims.pools, demand.pool)
    return demand.pool if ready else None
