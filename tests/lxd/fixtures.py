"""Fixtures with real LXD and Incus daemons, for a conftest to name as a plugin.

`real_lxds`, `real_cluster` and their like of Incus are started once and shared. A test asks for `fresh_lxds` or
`fresh_cluster` (`fresh_incus`, `fresh_incus_cluster`), which hand out the same servers swept clean, and close the
drivers' connections after it. A test that ruins servers makes its own of `flavour`, which is LXD and then Incus.
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
from tests.lxd.daemon import LxdDaemon
from tests.lxd.driver import LxdDriver
from tests.lxd.flavour import INCUS, LXD, Flavour
from tests.lxd.rest import IReactor, together


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest the marker of the tests that run on Incus."""
    config.addinivalue_line("markers", "real_incus: needs Debian's incus packages and root (make deps gets them)")


@dataclass(frozen=True)
class RealLxd:
    """A running LXD or Incus, and the driver of its administrator."""

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
    _need(LXD)


@pytest.fixture(scope="session")
def real_incus_possible() -> None:
    """Skip where no real Incus can run; fail there when LXDSCHED_REQUIRE_INCUS says that it must."""
    _need(INCUS)


@pytest.fixture(params=[LXD, pytest.param(INCUS, marks=pytest.mark.real_incus)], ids=str)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """LXD, and then Incus: the test runs on both, where they can run."""
    chosen: Flavour = request.param
    request.getfixturevalue(f"real_{chosen}_possible")
    return chosen


@pytest.fixture(scope="session")
def lxd_admin() -> KeyPair:
    """The administrator's certificate, which every daemon of the session trusts."""
    return make_certificate("admin", now=datetime.now(UTC), client=True)


@pytest.fixture(scope="session")
def real_lxds(real_lxd_possible: None, lxd_reactor: IReactor, lxd_admin: KeyPair) -> Iterator[tuple[RealLxd, ...]]:
    """Three standalone LXD servers, shared by the whole session."""
    yield from _servers(LXD, lxd_reactor, lxd_admin)


@pytest.fixture
def fresh_lxds(real_lxds: tuple[RealLxd, ...]) -> Iterator[tuple[RealLxd, ...]]:
    """Three standalone LXD servers, running and swept clean; their connections are closed after the test."""
    yield from _swept(real_lxds)


@pytest.fixture(scope="session")
def real_incus(real_incus_possible: None, lxd_reactor: IReactor, lxd_admin: KeyPair) -> Iterator[tuple[RealLxd, ...]]:
    """Three standalone Incus servers, shared by the whole session."""
    yield from _servers(INCUS, lxd_reactor, lxd_admin)


@pytest.fixture
def fresh_incus(real_incus: tuple[RealLxd, ...]) -> Iterator[tuple[RealLxd, ...]]:
    """Three standalone Incus servers, running and swept clean; their connections are closed after the test."""
    yield from _swept(real_incus)


@pytest.fixture(scope="session")
def real_cluster(real_lxd_possible: None, lxd_reactor: IReactor, lxd_admin: KeyPair) -> Iterator[LxdCluster]:
    """A cluster of three LXD servers, shared by the whole session."""
    yield from _cluster(LXD, lxd_reactor, lxd_admin)


@pytest.fixture
def fresh_cluster(real_cluster: LxdCluster) -> Iterator[LxdCluster]:
    """The shared cluster of LXD, all its members in service and swept clean."""
    yield from _swept_cluster(real_cluster)


@pytest.fixture(scope="session")
def real_incus_cluster(real_incus_possible: None, lxd_reactor: IReactor, lxd_admin: KeyPair) -> Iterator[LxdCluster]:
    """A cluster of three Incus servers, shared by the whole session."""
    yield from _cluster(INCUS, lxd_reactor, lxd_admin)


@pytest.fixture
def fresh_incus_cluster(real_incus_cluster: LxdCluster) -> Iterator[LxdCluster]:
    """The shared cluster of Incus, all its members in service and swept clean."""
    yield from _swept_cluster(real_incus_cluster)


def _need(flavour: Flavour) -> None:
    reason = flavour.missing()
    if reason is None:
        return
    if os.environ.get(flavour.require) == "1":
        pytest.fail(f"{flavour.require} is set, but {reason}")
    pytest.skip(reason)


def _servers(flavour: Flavour, reactor: IReactor, admin: KeyPair) -> Iterator[tuple[RealLxd, ...]]:
    with ExitStack() as stack:
        daemons = [LxdDaemon(reactor, f"node-{number}", flavour=flavour) for number in (1, 2, 3)]
        for daemon in daemons:
            stack.callback(daemon.cleanup)
        _finish(together(_start_trusting(daemon, admin) for daemon in daemons))
        yield tuple(RealLxd(daemon, LxdDriver(daemon.url, reactor, admin, daemon.fingerprint)) for daemon in daemons)


def _swept(servers: tuple[RealLxd, ...]) -> Iterator[tuple[RealLxd, ...]]:
    _finish(together(_revive(real) for real in servers))
    yield servers
    _finish(together(real.driver.aclose() for real in servers))


def _cluster(flavour: Flavour, reactor: IReactor, admin: KeyPair) -> Iterator[LxdCluster]:
    cluster = LxdCluster(reactor, admin, flavour)
    try:
        _finish(cluster.start())
        yield cluster
        _finish(cluster.aclose())
    finally:
        cluster.cleanup()


def _swept_cluster(cluster: LxdCluster) -> Iterator[LxdCluster]:
    _finish(cluster.reset())
    yield cluster
    _finish(cluster.aclose())


def _finish(work: Coroutine[Deferred[Any], Any, None]) -> None:
    # pytest-twisted has no asynchronous fixtures that last a session.
    blockon(Deferred.fromCoroutine(work))


async def _start_trusting(daemon: LxdDaemon, admin: KeyPair) -> None:
    await daemon.start()
    await daemon.trust(admin.cert_pem, "admin")


async def _revive(real: RealLxd) -> None:
    await real.daemon.revive()
    await real.driver.reset()
