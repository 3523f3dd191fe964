"""The ledgers that the contract is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.ledger.bench import Bench, Caller, MemoryBench, RedisBench


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
