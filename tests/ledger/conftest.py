"""The ledgers that the contract is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.ledger.bench import Bench, Caller, MemoryBench

BENCHES: dict[str, Callable[[], Bench]] = {"memory": MemoryBench}


@pytest.fixture(params=sorted(BENCHES))
def make_bench(request: pytest.FixtureRequest) -> Callable[[], Bench]:
    """Makes an empty ledger each time; whoever has one made closes it."""
    return BENCHES[request.param]


@pytest.fixture
def bench(make_bench: Callable[[], Bench]) -> Iterator[Bench]:
    made = make_bench()
    yield made
    made.close()


@pytest.fixture
def caller(bench: Bench) -> Caller:
    return Caller(bench)
