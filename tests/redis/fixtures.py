"""What a test marked `real_redis` needs, for a conftest to name as a plugin."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.redis.server import RedisServer, missing, redis_server

REQUIRE = "LXDSCHED_REQUIRE_REAL"


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest the marker of the tests that run on Redis."""
    config.addinivalue_line(
        "markers", "real_redis: needs Debian's redis-server and redis-sentinel (make deps gets them)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip where no Redis can run; fail there when LXDSCHED_REQUIRE_REAL says that it must."""
    if item.get_closest_marker("real_redis") is None:
        return
    reason = missing()
    if reason is None:
        return
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{REQUIRE} is set, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """One server for all whose tests are not about the server."""
    with redis_server() as server:
        yield server
