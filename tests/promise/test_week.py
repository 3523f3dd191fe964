"""A week of requests and instances in a minute, on a clock that the test moves: nothing of it is left behind."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable, Collection
from heapq import heappop, heappush
from itertools import count
from random import Random

from twisted.internet.task import Clock

from lxdsched.ledger.memory import MemoryLedger
from lxdsched.model import (
    Allocation,
    Capacity,
    Demand,
    Instance,
    InstanceType,
    Kind,
    Placement,
    Refusal,
    Resources,
    State,
    View,
)
from lxdsched.scheduler import Scheduler
from lxdsched.strategies import BUILT_IN
from tests.ledger.bench import at_once

REQUESTS = 200_000
WEEK = 7 * 86_400.0
HOSTS, CORES = 20, 10
LIFE = 120.0
GIB = 1024**3
KIND = Kind("small", "jammy")


class World:
    """Twenty hosts that tell at once what happens on them, and what is going to happen, by its time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.random = Random(7)
        self.coming: list[tuple[float, int, Callable[[], None]]] = []
        self.counts: Counter[str] = Counter()
        self._serial = count()
        self._show: Callable[[View], None] = lambda _view: None
        size = Resources(CORES * 1000, 64 * GIB)
        kinds = frozenset({InstanceType.CONTAINER})
        self._capacity = Capacity("node", size, size, frozenset(range(CORES)), frozenset({"x86_64"}), kinds)
        self.running: dict[str, dict[str, Instance]] = {f"node-{number}": {} for number in range(HOSTS)}
        self.frozen: dict[str, dict[str, Instance]] = {host: {} for host in self.running}

    def watch(self, show: Callable[[View], None], gone: Callable[[str], None]) -> None:
        self._show = show
        for host in self.running:
            self.tell(host)

    async def refresh(self, targets: Collection[str] | None = None) -> None:
        """All is told as it happens."""

    def tell(self, host: str) -> None:
        members = dict(self.running[host])
        taken = Resources(
            sum(each.resources.cpu for each in members.values()),
            sum(each.resources.memory for each in members.values()),
        )
        assert taken.cpu <= CORES * 1000, "more was made there than there is"
        ready = {KIND: len(self.frozen[host])} if self.frozen[host] else {}
        allocation = Allocation(taken, len(members), len(self.frozen[host]), members=members, ready=ready)
        self._show(View(host, State.LIVE, None, self._capacity, allocation, observed_at=self.clock.seconds()))

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        heappush(self.coming, (self.clock.seconds() + seconds, next(self._serial), work))

    def advance(self, seconds: float) -> None:
        """Let time pass, and do what is to be done meanwhile, each at its time."""
        end = self.clock.seconds() + seconds
        while self.coming and self.coming[0][0] <= end:
            moment, _, work = heappop(self.coming)
            self.clock.advance(max(moment - self.clock.seconds(), 0.0))
            work()
        self.clock.advance(max(end - self.clock.seconds(), 0.0))


class Callers:
    """Those who ask, each for an instance that lives and ends in one of the ways there are."""

    def __init__(self, world: World, scheduler: Scheduler, ledger: MemoryLedger) -> None:
        self._world = world
        self._scheduler = scheduler
        self._ledger = ledger
        self._number = 0

    def ask(self) -> None:
        world, random = self._world, self._world.random
        self._number += 1
        name, cores, fate = f"job-{self._number}", random.choice((1, 2, 2, 4)), random.random()
        pool = KIND if fate > 0.9 else None
        demand = Demand(
            Resources(cores * 1000, cores * GIB),
            pool=pool,
            instance_name=name if pool or random.random() < 0.5 else None,
            request_id=name if random.random() < 0.3 else None,
        )
        decided: Placement | Refusal = at_once(self._scheduler.schedule(demand))
        if isinstance(decided, Refusal):
            world.counts["refused"] += 1
            return
        world.counts["placed"] += 1
        made = decided.reservation
        assert made is not None
        host = decided.view.host
        if demand.request_id is not None:
            again = at_once(self._scheduler.schedule(demand))
            assert isinstance(again, Placement)
            assert again.reservation == made
        if fate < 0.05:
            world.counts["forgotten"] += 1
        elif fate < 0.1:
            world.counts["given back"] += 1
            assert at_once(self._ledger.release(made.id))
        elif decided.pooled and world.frozen[host]:
            world.counts["from the pool"] += 1
            label, _ = world.frozen[host].popitem()
            world.tell(host)
            world.later(random.uniform(0, 5), lambda: self._run(host, label, Instance(name, demand.resources)))
        else:
            world.later(random.uniform(0, 60), lambda: self._run(host, name, Instance(name, demand.resources)))

    def _run(self, host: str, label: str, instance: Instance) -> None:
        world, random = self._world, self._world.random
        world.running[host][label] = instance
        world.tell(host)
        world.later(random.uniform(20, 500), lambda: self._end(host, label, instance, to_pool=random.random() < 0.15))

    def _end(self, host: str, label: str, instance: Instance, *, to_pool: bool) -> None:
        world = self._world
        del world.running[host][label]
        if to_pool and len(world.frozen[host]) < 3:
            world.counts["frozen"] += 1
            world.frozen[host][label] = instance
        world.tell(host)


def leavings(scheduler: Scheduler, ledger: MemoryLedger) -> dict[str, int]:
    """Count what is kept where, beside what every host needs."""
    picture = vars(ledger._picture)
    kept = {f"ledger.{name}": len(value) for name, value in picture.items() if isinstance(value, dict | list | set)}
    board = scheduler._board
    kept |= {f"board.{name}": len(value) for name, value in vars(board).items() if isinstance(value, dict)}
    for name, ranking in board._rankings.items():
        kept |= {f"{name}.{key}": len(value) for key, value in vars(ranking).items() if isinstance(value, dict | list)}
    return kept


def test_after_a_week_of_requests_and_instances_nothing_is_left() -> None:
    world = World()
    ledger = MemoryLedger(world.clock, LIFE)
    scheduler = Scheduler(world, ledger, BUILT_IN[0], {}, Random(1))
    callers = Callers(world, scheduler, ledger)

    def live(requests: int) -> int:
        """Let some time pass with requests, and then all end; say how many blocks of memory are in use."""
        for _ in range(requests):
            world.advance(world.random.expovariate(REQUESTS / WEEK))
            callers.ask()
        while world.coming:
            world.advance(600)
        for host in world.running:
            world.frozen[host].clear()
            world.tell(host)
        world.advance(LIFE)
        assert scheduler.snapshot()
        gc.collect()
        return sys.getallocatedblocks()

    early = live(REQUESTS // 10)
    kept = leavings(scheduler, ledger)
    late = live(REQUESTS - REQUESTS // 10)
    assert at_once(ledger.reservations()) == []
    assert world.clock.getDelayedCalls() == []
    assert leavings(scheduler, ledger) == kept
    assert {name: size for name, size in kept.items() if size not in {0, 1, HOSTS}} == {}
    assert {name for name, size in kept.items() if name.startswith("ledger.") and size} == set()
    assert late - early < 1000, "memory has grown"
    counts = world.counts
    assert counts["placed"] + counts["refused"] == REQUESTS
    assert min(counts[fate] for fate in ("refused", "forgotten", "given back", "from the pool", "frozen")) > 100
