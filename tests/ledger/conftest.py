"""The ledgers that the contract is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from lxdsched.ledger.presence import SETTLING
from tests.ledger.bench import Bench, Caller, MemoryBench, RedisBench, at_once
from tests.ledger.replica import Replica
from tests.ledger.stopped import StoppedRedis
from tests.redis.server import RedisServer


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real_redis)])
def make_bench(request: pytest.FixtureRequest) -> Callable[[], Bench]:
    """Makes an empty ledger each time; whoever has one made closes it."""
    if request.param == "memory":
        return MemoryBench
    return partial(RedisBench, request.getfixturevalue("redis"))


@pytest.fixture
def bench(make_bench: Callable[[], Bench]) -> Iterator[Bench]:
    made = make_bench()
    yield made
    made.close()


@pytest.fixture
def caller(bench: Bench) -> Caller:
    return Caller(bench)


@pytest.fixture
def stopped(redis: RedisServer) -> StoppedRedis:
    return StoppedRedis(redis)


@pytest.fixture
def pair(stopped: StoppedRedis) -> Iterator[tuple[Replica, Replica]]:
    """Two replicas that share everything."""
    replicas = Replica(stopped), Replica(stopped)
    for replica in replicas:
        replica.ledger.start()
    stopped.advance(SETTLING)
    assert not any(replica.ledger.degraded for replica in replicas)
    yield replicas
    for replica in replicas:
        replica.wire.release()
        at_once(replica.ledger.stop())
    assert not stopped.clock.getDelayedCalls()
