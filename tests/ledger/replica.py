"""A replica of the scheduler as its ledger sees it: one of several on one Redis."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lxdsched.ledger.book import Candidate
from lxdsched.model import Instance, Reservation, Resources
from tests.ledger.bench import LIFE, at_once
from tests.ledger.stopped import StoppedRedis
from tests.support import GIB, demand


class Asking:
    """A request that may still wait."""

    def __init__(self, waiting: Deferred[Reservation | None]) -> None:
        self.made: Reservation | None = None
        self.error: BaseException | None = None
        self.ended = False
        self._waiting = waiting.addBoth(self._end)

    def _end(self, result: Reservation | Failure | None) -> None:
        self.ended = True
        if isinstance(result, Failure):
            self.error = result.value
        else:
            self.made = result

    def cancel(self) -> None:
        self._waiting.cancel()


class Replica:
    """A ledger with its wire, asked for places on hosts of four cores each."""

    def __init__(self, redis: StoppedRedis, *, refuse: bool = False) -> None:
        self.ledger, self.wire = redis.ledger(LIFE, refuse=refuse)
        self.rooms = {name: Resources(4000, 64 * GIB) for name in "abc"}
        self.asked: list[str] = []

    def ask(self, cores: int = 2, **more: object) -> Asking:
        asked = demand(cores, GIB, **more)

        def rank() -> list[Candidate]:
            """Rank as `least-allocated` does."""
            free = {name: room - self.ledger.claims(name).resources for name, room in self.rooms.items()}
            fit = [name for name in free if free[name].covers(asked.resources)]
            best = sorted(fit, key=lambda name: (-free[name].cpu, name))
            self.asked += best[:1]
            return [Candidate(name, self.rooms[name], 1) for name in best]

        return Asking(Deferred.fromCoroutine(self.ledger.reserve(asked, rank)))

    def placed(self, cores: int = 2, **more: object) -> Reservation:
        asking = self.ask(cores, **more)
        assert asking.made is not None
        return asking.made

    def listed(self) -> list[Reservation]:
        return list(at_once(self.ledger.reservations()))

    def claimed(self) -> list[int]:
        return [self.ledger.claims(name).resources.cpu // 1000 for name in self.rooms]

    def see(self, host: str, now: dict[str, Instance], before: dict[str, Instance] | None, asked_at: float) -> None:
        self.ledger.sight(host, now, before, asked_at)
