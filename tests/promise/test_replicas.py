"""Whatever several replicas see, late or soon, and whatever becomes of Redis: nothing is given away twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lxdsched.model import Demand, Resources
from tests.ledger.stopped import StoppedRedis
from tests.promise.replicas import LIFE, Fleet, Promised, Replica
from tests.promise.truth import TrueHost
from tests.redis.server import RedisServer
from tests.support import GIB

pytestmark = pytest.mark.real_redis

SMALL = Resources(1000, 2 * GIB)
LARGE = Resources(2000, 3 * GIB)
"""What is asked for. None looks like the other."""


def hosts() -> dict[str, TrueHost]:
    return {name: TrueHost(name, Resources(cores * 1000, 64 * GIB)) for name, cores in (("a", 6), ("b", 4))}


class Replicas(RuleBasedStateMachine):
    """Everything that may happen, in any order."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self.fleet = Fleet(StoppedRedis(server), hosts())
        self.calm = True  # whether all replicas share all that they know

    @initialize(count=st.sampled_from([2, 2, 3]))
    def some_replicas_start(self, count: int) -> None:
        for _ in range(count):
            self.fleet.add_replica()
        self.mend()

    def teardown(self) -> None:
        try:
            self.mend()
            self.fleet.check_at_rest()
            self.fleet.tick(LIFE)
            self.fleet.check()
            self.fleet.check_at_rest()
            for host in self.fleet.hosts.values():
                host.instances.clear()
            self.fleet.check_at_rest()
        finally:
            for replica in self.fleet.replicas:
                replica.stop()
        assert not self.fleet.redis.clock.getDelayedCalls()

    def mend(self) -> None:
        for replica in self.fleet.replicas:
            replica.wire.cut = False
        for _ in range(8):
            self.fleet.tick(0.6)  # to notice it, to come back, and to be sure
        assert not any(replica.ledger.degraded for replica in self.fleet.replicas)
        self.calm = True

    def replica(self, data: st.DataObject) -> Replica:
        return self.fleet.replicas[data.draw(st.integers(0, len(self.fleet.replicas) - 1))]

    def some(self, data: st.DataObject, wanted: Callable[[Promised], bool]) -> Promised | None:
        found = [each for each in self.fleet.promised if wanted(each)]
        return found[data.draw(st.integers(0, len(found) - 1))] if found else None

    def awaited(self, each: Promised) -> bool:
        return each.awaited(self.fleet.now)

    # Callers

    @rule(
        data=st.data(),
        size=st.sampled_from([SMALL, LARGE]),
        named=st.booleans(),
        keyed=st.booleans(),
        times=st.integers(1, 4),
    )
    def somebody_asks(self, data: st.DataObject, size: Resources, named: bool, keyed: bool, times: int) -> None:
        for _ in range(times):
            self.fleet.names += 1
            name = f"n{self.fleet.names}"
            demand = Demand(size, instance_name=name if named else None, request_id=name if keyed else None)
            self.fleet.ask(self.replica(data), demand)

    @rule(data=st.data())
    def a_request_is_repeated_elsewhere(self, data: st.DataObject) -> None:
        promised = self.some(data, lambda each: each.demand.request_id is not None and self.awaited(each))
        replica = self.replica(data)
        if promised is not None and self.calm:
            assert self.fleet.ask(replica, promised.demand) is promised

    @rule(data=st.data(), times=st.sampled_from([1, 1, 3]))
    def an_instance_is_made(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            if (promised := self.some(data, self.awaited)) is not None:
                self.fleet.use(promised)

    @rule(data=st.data())
    def an_answer_is_given_back(self, data: st.DataObject) -> None:
        self.fleet.tick()
        replica = self.replica(data)
        promised = self.some(data, self.awaited)
        if promised is not None and self.calm:
            self.fleet.give_back(replica, promised)

    @rule(data=st.data(), times=st.sampled_from([1, 3]))
    def jobs_end(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            found = [(host, each) for host in self.fleet.hosts.values() for each in host.instances]
            if found:
                self.fleet.delete(*found[data.draw(st.integers(0, len(found) - 1))])

    # What the replicas see

    @rule(data=st.data(), name=st.sampled_from("ab"), what=st.sampled_from(["is listed", "is heard", "both"]))
    def a_host(self, data: st.DataObject, name: str, what: str) -> None:
        self.fleet.tick()
        replica = self.replica(data)
        if what == "is listed":
            replica.eyes[name].take(self.fleet.now)
        elif what == "both":
            self.fleet.look(replica, name)
        elif replica.eyes[name].under_way:
            replica.hear(name)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, LIFE / 2, LIFE]))
    def time_passes(self, seconds: float) -> None:
        self.fleet.tick(seconds)

    # What becomes of replicas and of Redis

    @precondition(lambda self: len(self.fleet.replicas) > 1 and self.calm)  # what it alone knew would be lost with it
    @rule(data=st.data())
    def a_replica_dies(self, data: st.DataObject) -> None:
        replica = self.replica(data)
        for name in self.fleet.hosts:
            self.fleet.look(replica, name)  # who comes later cannot tell whose the instances are that are there already
        self.fleet.tick(0.6)  # and what it has promised, the others know by then
        self.fleet.replicas.remove(replica)
        replica.stop()

    @precondition(lambda self: len(self.fleet.replicas) < 3)
    @rule()
    def a_replica_starts(self) -> None:
        self.fleet.add_replica()

    @rule(data=st.data())
    def a_replica_loses_redis(self, data: st.DataObject) -> None:
        self.replica(data).wire.cut = True
        self.calm = False

    @rule()
    def all_find_redis_again(self) -> None:
        self.mend()

    @rule()
    def redis_loses_everything(self) -> None:
        if self.calm:
            self.fleet.tick(0.6)  # what was given back a moment ago, not all replicas have heard of
        self.fleet.redis.lose_everything()
        self.calm = False

    @invariant()
    def nothing_is_given_away_twice(self) -> None:
        if self.fleet.replicas:
            self.fleet.check()


def test_whatever_replicas_see_nothing_is_given_away_twice(redis: RedisServer) -> None:
    class OnThisRedis(Replicas):
        def __init__(self) -> None:
            super().__init__(redis)

    run_state_machine_as_test(
        OnThisRedis, settings=settings(max_examples=60, stateful_step_count=50, report_multiple_bugs=False)
    )
