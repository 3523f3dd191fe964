"""Several schedulers over one truthful fleet, each with its own, older or newer, views, and one Redis between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from lxdsched.ledger.redis import RedisLedger
from lxdsched.model import Demand, Placement, Refusal, Reservation, Resources, State, View
from lxdsched.scheduler import Scheduler
from lxdsched.strategies import BUILT_IN
from tests.ledger.bench import at_once
from tests.ledger.stopped import StoppedRedis, Wire
from tests.promise.truth import Listing, SimulatedFleet, TrueHost, TrueInstance, total

LIFE = 30.0
"""Seconds for which an answer's capacity is kept."""

LISTING = 5.0
"""Seconds after which a listing has arrived."""

TICK = 0.01
"""Seconds that pass with everything that happens."""


@dataclass(eq=False)
class Promised:
    """An answer, and what became of it. `alone` is the replica that knows of it alone, while it is on its own."""

    demand: Demand
    reservation: Reservation
    made: TrueInstance | None = None
    given_back: bool = False
    alone: Replica | None = None

    def awaited(self, now: float) -> bool:
        """Whether its instance may still be made."""
        return self.made is None and not self.given_back and self.reservation.expires_at - now > TICK / 2


class Eyes:
    """What one replica sees of a host: listings taken at some time, which arrive later, in order."""

    def __init__(self, host: TrueHost) -> None:
        self.host = host
        self.under_way: deque[tuple[float, Listing]] = deque()
        self.shown: Listing | None = None

    def take(self, now: float) -> None:
        """Have the host listed as it is now."""
        self.host.take_listing()
        self.under_way.append((now, self.host.under_way.pop()))

    def knows(self, instance: TrueInstance) -> bool:
        """Tell whether an instance is in what was shown last, and in all that is under way."""
        listings = [listing for _, listing in self.under_way]
        return self.shown is not None and all(instance in each.counted for each in [self.shown, *listings])


class Replica:
    """One scheduler, as one process has it."""

    def __init__(self, redis: StoppedRedis, hosts: Iterable[TrueHost], number: int) -> None:
        self._redis = redis
        self.eyes = {host.name: Eyes(host) for host in hosts}
        self.fleet = SimulatedFleet([each.host for each in self.eyes.values()], redis.clock.seconds)
        self.fleet.patient = False
        self.ledger: RedisLedger
        self.wire: Wire
        self.ledger, self.wire = redis.ledger(LIFE, by=f"replica {number}")
        strategies = {each.name: each for each in BUILT_IN}
        self.scheduler = Scheduler(self.fleet, self.ledger, BUILT_IN[0], strategies, Random(number))
        self.ledger.start()

    def ask(self, demand: Demand) -> Placement | Refusal:
        return at_once(self.scheduler.schedule(demand))

    def hear(self, name: str) -> None:
        """Have the oldest listing of a host that is under way arrive."""
        eyes = self.eyes[name]
        asked_at, eyes.shown = eyes.under_way.popleft()
        before = self.fleet._views[name]
        same = before.observed_at is not None and before.allocation == eyes.shown.allocation
        self.fleet._put(
            View(
                name,
                State.LIVE,
                capacity=eyes.host.capacity,
                allocation=before.allocation if same else eyes.shown.allocation,
                observed_at=self._redis.clock.seconds(),
                asked_at=asked_at,
            )
        )

    def view(self, name: str) -> View:
        return next(each for each in self.scheduler.snapshot() if each.host == name)

    def stop(self) -> None:
        at_once(self.ledger.stop())


@dataclass
class Fleet:
    """Hosts, the replicas that schedule on them, and an account of what they have promised.

    `excused` is what a host carries beyond its size without any answer's fault that was not degraded.
    """

    redis: StoppedRedis
    hosts: dict[str, TrueHost]
    replicas: list[Replica] = field(default_factory=list)
    promised: list[Promised] = field(default_factory=list)
    excused: dict[str, Resources] = field(default_factory=dict)
    names: int = 0

    @property
    def now(self) -> float:
        return self.redis.clock.seconds()

    def add_replica(self) -> None:
        """Start another one, which looks at all hosts first."""
        self.names += 1
        replica = Replica(self.redis, self.hosts.values(), self.names)
        self.replicas.append(replica)
        self.tick()
        for name in self.hosts:
            self.look(replica, name)

    def tick(self, seconds: float = TICK) -> None:
        """Let time pass, and each replica see in time what it must see for the promise to hold."""
        self.check()
        end = self.now + seconds
        while (due := self._next_due()) is not None and due[0] <= end:
            self.redis.advance(max(due[0] - self.now, 0))
            self.look(due[1], due[2])
        self.redis.advance(max(end - self.now, 0))
        self.check()

    def _next_due(self) -> tuple[float, Replica, str] | None:
        """Find what is to be seen first.

        Before its reservation ends, an instance has to be known to each replica; and no listing takes for ever.
        """
        late = [
            (each.under_way[0][0] + LISTING, replica, name)
            for replica in self.replicas
            for name, each in replica.eyes.items()
            if each.under_way
        ]
        unknown = [
            (each.reservation.expires_at - 10 * TICK, replica, host.name)
            for each in self.promised
            for host in [self.hosts[each.reservation.host]]
            if each.made is not None and each.made in host.instances and each.reservation.expires_at > self.now
            for replica in self.replicas
            if not replica.eyes[host.name].knows(each.made)
        ]
        return min(late + unknown, key=lambda each: each[0], default=None)

    def look(self, replica: Replica, name: str) -> None:
        """Have a replica see a host as it is now."""
        replica.eyes[name].take(self.now)
        while replica.eyes[name].under_way:
            replica.hear(name)

    # What callers do

    def ask(self, replica: Replica, demand: Demand) -> Promised | None:
        """Ask a replica; the answer must not promise what others have been promised."""
        self.tick()
        answer = replica.ask(demand)
        if isinstance(answer, Refusal):
            return None
        made = answer.reservation
        assert made is not None
        known = next((each for each in self.promised if each.reservation.id == made.id), None)
        if known is not None:
            assert demand.request_id is not None
            return known
        promised = Promised(demand, made, alone=replica if replica.ledger.degraded else None)
        self.promised.append(promised)
        self.check()
        return promised

    def use(self, promised: Promised) -> None:
        """Make the instance that was promised a place."""
        self.tick()
        self.names += 1
        name = promised.demand.instance_name or f"i{self.names}"
        promised.made = TrueInstance(name, promised.demand.resources)
        self.hosts[promised.reservation.host].instances[promised.made] = None

    def give_back(self, replica: Replica, promised: Promised) -> None:
        assert at_once(replica.ledger.release(promised.reservation.id))
        promised.given_back = True

    def delete(self, host: TrueHost, instance: TrueInstance) -> None:
        self.tick()
        del host.instances[instance]

    # The promise

    def load(self, host: TrueHost, *, shared: bool = False) -> Resources:
        """Add up what is on a host, and what may still be made there; only what all could know, if `shared`."""
        there = [each for each in self.promised if each.reservation.host == host.name]
        awaited = total(
            each.reservation.resources for each in there if each.awaited(self.now) and not (shared and each.alone)
        )
        unknown = total(
            each.made.size for each in there if shared and each.alone and each.made and each.made in host.instances
        )
        return host.load() + awaited - unknown

    def excuse(self) -> None:
        """Take what is too much for given."""
        for host in self.hosts.values():
            load = self.load(host, shared=True)
            self.excused[host.name] = Resources(max(load.cpu, host.size.cpu), max(load.memory, host.size.memory))

    def check(self) -> None:
        """Fail when a host has been promised more than it has, by replicas that could know it."""
        for each in self.promised:
            if each.alone is not None and not each.alone.ledger.degraded:
                each.alone = None
                self.excuse()
        for host in self.hosts.values():
            load, most = self.load(host, shared=True), self.excused.get(host.name, host.size)
            assert most.covers(load), f"{host.name} was given away twice: {load} of {most}"
        self.excuse()

    def check_at_rest(self) -> None:
        """When everybody has seen everything, what each replica counts is what there is, and what may yet be made.

        That of which no replica ever saw the instance may be counted too, until its time is up.
        """
        for _ in range(2):  # the second time, what others have seen is known
            for replica in self.replicas:
                self.tick(1.0)
                for name in self.hosts:
                    self.look(replica, name)
        while any(abs(each.reservation.expires_at - self.now) < TICK for each in self.promised):
            self.tick()  # to the millisecond, nobody can say what is over
        for replica in self.replicas:
            at_once(replica.ledger.refresh())
            for host in self.hosts.values():
                unseen = total(
                    each.reservation.resources
                    for each in self.promised
                    if each.made is not None
                    and each.made not in host.instances
                    and each.reservation.host == host.name
                    and self._may_be_claimed(each)
                )
                claimed = replica.view(host.name).claimed
                assert claimed.covers(self.load(host)), "a replica counts too little"
                assert (self.load(host) + unseen).covers(claimed), "a replica counts something twice"

    def _may_be_claimed(self, gone: Promised) -> bool:
        """Tell whether what was promised may still be claimed, or instead of it the last of those that look like it."""
        made = gone.reservation
        alike = [
            each.reservation.expires_at
            for each in self.promised
            if (each is gone or (made.instance_name is None and each.reservation.instance_name is None))
            and (each.reservation.host, each.reservation.resources) == (made.host, made.resources)
        ]
        return max(alike) > self.now and not gone.given_back
