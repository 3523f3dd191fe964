"""Fixtures with real LXD daemons, for a conftest to name as a plugin.

`real_lxds` and `real_cluster` are started once and shared. A test asks for `fresh_lxds` or `fresh_cluster`, which hand
out the same servers swept clean, and close the drivers' connections after it. A test that ruins a cluster asks for
`own_cluster`.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from pytest_twisted import blockon
from twisted.internet.defer import Deferred

from lxdsched.sandbox.certs import KeyPair, make_certificate
from tests.lxd.cluster import LxdCluster
from tests.lxd.daemon import LxdDaemon, skip_reason
from tests.lxd.driver import LxdDriver
from tests.lxd.rest import IReactor, together

REQUIRE = "LXDSCHED_REQUIRE_REAL"


@dataclass(frozen=True)
class RealLxd:
    """A running LXD, and the driver of its administrator."""

    daemon: LxdDaemon
    driver: LxdDriver


@pytest.fixture(scope="session")
def lxd_reactor() -> IReactor:
    """The reactor that pytest-twisted runs."""
    from twisted.internet import reactor  # noqa: TID251  # importing it installs it

    return cast(IReactor, reactor)


@pytest.fixture(scope="session")
def real_lxd_possible() -> None:
    """Skip where no real LXD can run; fail there when LXDSCHED_REQUIRE_REAL says that it must."""
    reason = skip_reason()
    if reason is None:
        return
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{REQUIRE} is set, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def lxd_admin() -> KeyPair:
    """The administrator's certificate, which every daemon of the session trusts."""
    return make_certificate("admin", now=datetime.now(UTC), client=True)


@pytest.fixture(scope="session")
def real_lxds(real_lxd_possible: None, lxd_reactor: IReactor, lxd_admin: KeyPair) -> Iterator[tuple[RealLxd, ...]]:
    """Three standalone LXD servers, shared by the whole session."""
    with ExitStack() as stack:
        daemons = [LxdDaemon(lxd_reactor, f"node-{number}") for number in (1, 2, 3)]
        for daemon in daemons:
            stack.callback(daemon.cleanup)
        _finish(together(_start_trusting(daemon, lxd_admin) for daemon in daemons))
        yield tuple(RealLxd(daemon, _driver(daemon, lxd_reactor, lxd_admin)) for daemon in daemons)


@pytest.fixture
def fresh_lxds(real_lxds: tuple[RealLxd, ...]) -> Iterator[tuple[RealLxd, ...]]:
    """Three standalone LXD servers, running and swept clean; their connections are closed after the test."""
    _finish(together(_revive(real) for real in real_lxds))
    yield real_lxds
    _finish(together(real.driver.aclose() for real in real_lxds))


@pytest.fixture(scope="session")
def real_cluster(real_lxd_possible: None, lxd_reactor: IReactor, lxd_admin: KeyPair) -> Iterator[LxdCluster]:
    """A cluster of three, shared by the whole session."""
    yield from _cluster(lxd_reactor, lxd_admin)


@pytest.fixture
def fresh_cluster(real_cluster: LxdCluster) -> Iterator[LxdCluster]:
    """The shared cluster, all its members in service and swept clean."""
    _finish(real_cluster.reset())
    yield real_cluster
    _finish(real_cluster.aclose())


@pytest.fixture
def own_cluster(real_lxd_possible: None, lxd_reactor: IReactor, lxd_admin: KeyPair) -> Iterator[LxdCluster]:
    """A cluster of three that the test may ruin."""
    yield from _cluster(lxd_reactor, lxd_admin)


def _cluster(reactor: IReactor, admin: KeyPair) -> Iterator[LxdCluster]:
    cluster = LxdCluster(reactor, admin)
    try:
        _finish(cluster.start())
        yield cluster
        _finish(cluster.aclose())
    finally:
        cluster.cleanup()


def _finish(work: Coroutine[Deferred[Any], Any, None]) -> None:
    # pytest-twisted has no asynchronous fixtures that last a session.
    blockon(Deferred.fromCoroutine(work))


def _driver(daemon: LxdDaemon, reactor: IReactor, admin: KeyPair) -> LxdDriver:
    return LxdDriver(daemon.url, reactor, admin, daemon.fingerprint)


async def _start_trusting(daemon: LxdDaemon, admin: KeyPair) -> None:
    await daemon.start()
    await daemon.trust(admin.cert_pem, "admin")


async def _revive(real: RealLxd) -> None:
    await real.daemon.revive()
    await real.driver.reset()
