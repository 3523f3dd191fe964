"""A ledger in this process: all there is for a daemon that works alone.

Nothing here waits for anything, so whatever is checked still holds when it is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lxdsched.ledger.book import Candidate
from lxdsched.ledger.sight import matches
from lxdsched.model import NO_CLAIMS, Claims, Demand, Instance, Reservation, promised


class MemoryLedger:
    """Keeps reservations for `life` seconds each."""

    def __init__(self, clock: IReactorTime, life: float) -> None:
        self._clock = clock
        self._life = life
        self._alive: dict[str, Reservation] = {}  # oldest first, which is the order in which they expire
        self._requests: dict[str, str] = {}
        self._pending: dict[str, dict[str, Reservation]] = {}
        self._tied: dict[str, dict[str, str]] = {}
        self._claims: dict[str, Claims] = {}
        self._alarm: IDelayedCall | None = None
        self._changed: Callable[[str], None] = lambda _host: None

    def watch(self, changed: Callable[[str], None]) -> None:
        """Have `changed` called with a host whenever what is claimed on it changes."""
        self._changed = changed

    def claims(self, host: str) -> Claims:
        """Say what is claimed on a host now and not seen there."""
        self._expire()
        return self._claims.get(host, NO_CLAIMS)

    async def find(self, request_id: str) -> Reservation | None:
        """Return the living reservation that was made under this key."""
        self._expire()
        return self._alive.get(self._requests.get(request_id, ""))

    async def reserve(self, demand: Demand, candidates: Sequence[Candidate]) -> Reservation | None:
        """Claim the demand on the first of these hosts on which it fits beside all that is claimed there."""
        if demand.request_id is not None and (known := await self.find(demand.request_id)) is not None:
            return known
        for number, candidate in enumerate(candidates, start=1):
            claims = self.claims(candidate.host)
            if (candidate.room - claims.resources).covers(demand.resources):
                others = tuple(other.host for other in candidates[number:])
                return self._claim(demand, candidate, claims, others)
        return None

    def sight(self, host: str, now: Mapping[str, Instance], before: Mapping[str, Instance] | None) -> None:
        """Let the instances of a host take over its reservations."""
        self._expire()
        pending = self._pending.get(host)
        if not pending:
            return
        pairs = matches(list(pending.values()), now, before, self._tied.get(host, {}))
        for reservation_id, label in pairs.items():
            seen = self._alive[reservation_id]
            self._alive[reservation_id] = replace(seen, instance=label)
            self._tied.setdefault(host, {})[label] = reservation_id
            self._settle(seen)

    async def release(self, reservation_id: str) -> bool:
        """Give a reservation back. False when there is none."""
        self._expire()
        if reservation_id not in self._alive:
            return False
        self._forget(reservation_id)
        self._set_alarm()
        return True

    async def reservations(self) -> Sequence[Reservation]:
        """List the living reservations, pending and seen, oldest first."""
        self._expire()
        return list(self._alive.values())

    async def stop(self) -> None:
        """Wake up no more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _claim(self, demand: Demand, candidate: Candidate, claims: Claims, others: tuple[str, ...]) -> Reservation:
        pooled = demand.pool is not None and candidate.ready > promised(claims.pools, demand.pool)
        now = self._clock.seconds()
        made = Reservation(
            id=uuid4().hex,
            host=candidate.host,
            resources=demand.resources,
            created_at=now,
            expires_at=now + self._life,
            instance_name=demand.instance_name,
            request_id=demand.request_id,
            pool=demand.pool if pooled else None,
            alternates=others,
            demand=demand,
        )
        self._alive[made.id] = made
        self._pending.setdefault(made.host, {})[made.id] = made
        pools = claims.pools if made.pool is None else (*claims.pools, made.pool)
        self._claims[made.host] = Claims(claims.resources + made.resources, pools)
        if made.request_id is not None:
            self._requests[made.request_id] = made.id
        self._changed(made.host)
        self._set_alarm()
        return made

    def _expire(self) -> None:
        now = self._clock.seconds()
        while self._alive:
            oldest = next(iter(self._alive.values()))
            if oldest.expires_at > now:
                return
            self._forget(oldest.id)

    def _forget(self, reservation_id: str) -> None:
        gone = self._alive.pop(reservation_id)
        if gone.request_id is not None:
            del self._requests[gone.request_id]
        if gone.instance is None:
            self._settle(gone)
            return
        tied = self._tied.get(gone.host, {})
        if tied.get(gone.instance) == gone.id:
            del tied[gone.instance]
        if not tied:
            self._tied.pop(gone.host, None)

    def _settle(self, gone: Reservation) -> None:
        """Take a reservation off what is claimed on its host."""
        pending = self._pending[gone.host]
        del pending[gone.id]
        if not pending:
            del self._pending[gone.host]
            del self._claims[gone.host]
        else:
            claims = self._claims[gone.host]
            pools = list(claims.pools)
            if gone.pool is not None:
                pools.remove(gone.pool)
            self._claims[gone.host] = Claims(claims.resources - gone.resources, tuple(pools))
        self._changed(gone.host)

    def _set_alarm(self) -> None:
        """Wake up when the oldest reservation's time is up, and never when there is none."""
        if not self._alive:
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
        elif self._alarm is None:
            due = next(iter(self._alive.values())).expires_at - self._clock.seconds()
            self._alarm = self._clock.callLater(max(due, 0), self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self._expire()
        self._set_alarm()
