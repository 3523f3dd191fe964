"""What a ledger needs to be tried: a life, a way to wait for it, and time that passes when a test says so."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from lxdsched.ledger.book import Candidate, Ledger
from lxdsched.ledger.memory import MemoryLedger
from lxdsched.model import Demand, Instance, Reservation, Resources
from lxdsched.repeats import RequestKey
from tests.ledger.stopped import StoppedRedis
from tests.redis.server import RedisServer

LIFE = 120.0
"""Seconds for which the ledgers that are tried keep a reservation."""

T = TypeVar("T")

ROOMY = Resources(1_000_000, 1 << 50)


class Bench(Protocol):
    """One empty ledger, whose reservations live for LIFE seconds."""

    ledger: Ledger

    def seconds(self) -> float:
        """Tell the time of the ledger's clock."""

    def advance(self, seconds: float) -> None:
        """Let time pass for the ledger."""

    def wait(self, operation: Coroutine[Deferred[Any], Any, T]) -> T:
        """Wait until an operation of the ledger has ended, and return what it returns or raise what it raises."""

    def idle(self) -> bool:
        """Tell whether the ledger waits for nothing that a reservation is the cause of."""

    def close(self) -> None:
        """Stop the ledger, and leave nothing of it behind."""


def at_once(operation: Coroutine[Deferred[Any], Any, T]) -> T:
    """Return what an operation returns that has nothing to wait for."""
    outcome: list[T | Failure] = []
    Deferred.fromCoroutine(operation).addBoth(outcome.append)
    assert outcome, "it still waits"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


class MemoryBench:
    """The ledger in this process."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)  # so that no time is confused with a duration
        self.ledger: Ledger = MemoryLedger(self.clock, LIFE)

    def seconds(self) -> float:
        return self.clock.seconds()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def wait(self, operation: Coroutine[Deferred[Any], Any, T]) -> T:
        return at_once(operation)

    def idle(self) -> bool:
        return not self.clock.getDelayedCalls()

    def close(self) -> None:
        at_once(self.ledger.stop())
        assert self.idle(), "a stopped ledger waits for something"


class RedisBench:
    """The ledger in a real Redis, whose clock is ours."""

    def __init__(self, server: RedisServer) -> None:
        self._redis = StoppedRedis(server)
        self.clock = self._redis.clock
        made, _ = self._redis.ledger(LIFE)
        self.ledger: Ledger = made
        made.start()
        self._redis.advance(5)  # then it is sure that nobody else has anything to bring
        assert not made.degraded

    def seconds(self) -> float:
        return self.clock.seconds()

    def advance(self, seconds: float) -> None:
        self._redis.advance(seconds)

    def wait(self, operation: Coroutine[Deferred[Any], Any, T]) -> T:
        return at_once(operation)

    def idle(self) -> bool:
        return len(self.clock.getDelayedCalls()) <= 1  # the look that it takes at Redis now and then

    def close(self) -> None:
        at_once(self.ledger.stop())
        assert not self.clock.getDelayedCalls(), "a stopped ledger waits for something"


class Caller:
    """Asks a ledger as the scheduler does, and looks at it as an operator does."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._listed: dict[str, dict[str, Instance]] = {}

    def reserve(self, demand: Demand, *candidates: Candidate | str) -> Reservation | None:
        """Claim a demand on the first candidate that has room; a mere name has room for everything."""
        spelled = [Candidate(each, ROOMY) if isinstance(each, str) else each for each in candidates]
        return self.bench.wait(self.bench.ledger.reserve(demand, lambda: spelled))

    def claim(self, demand: Demand, *candidates: Candidate | str) -> Reservation:
        """Do the same where there is room."""
        made = self.reserve(demand, *(candidates or ("a",)))
        assert made is not None
        return made

    def list(self, host: str = "a", **instances: Instance) -> None:
        """Have a host list exactly these instances, by label."""
        self.look(host, instances, self._listed.get(host, {}))
        self._listed[host] = instances

    def look(self, host: str, now: Mapping[str, Instance], before: Mapping[str, Instance] | None) -> None:
        """Have a ledger see what a host lists."""
        self.bench.ledger.sight(host, now, before, self.bench.seconds())

    def release(self, reservation: Reservation) -> bool:
        """Give a reservation back."""
        return self.bench.wait(self.bench.ledger.release(reservation.id))

    def find(self, request_id: str, client: str | None = None) -> Reservation | None:
        """Look a reservation up by its request."""
        return self.bench.ledger.find(RequestKey(client, request_id))

    def all(self) -> Sequence[Reservation]:
        """List what lives."""
        return self.bench.wait(self.bench.ledger.reservations())

    def claimed(self, host: str = "a") -> Resources:
        """Say what is claimed on a host."""
        return self.bench.ledger.claims(host).resources

    def takers(self) -> Mapping[str, str | None]:
        """Say which instance has taken each living reservation over."""
        return {each.id: each.instance for each in self.all()}
