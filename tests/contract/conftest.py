"""Three servers, simulated, LXD's or Incus', changed in the same way: through their own REST API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_twisted import blockon
from twisted.internet.defer import Deferred

from lxdsched.sandbox.certs import KeyPair, make_certificate
from lxdsched.sandbox.database import Database
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from tests.lxd.daemon import LxdDaemon
from tests.lxd.driver import LxdDriver
from tests.lxd.rest import IReactor
from tests.support import the_reactor

REAL_LXD = [pytest.mark.real_lxd]
REAL_INCUS = [pytest.mark.real_lxd, pytest.mark.real_incus]

# Whether it is simulated, and whose way it has.
VARIANTS = [
    pytest.param((True, "lxd"), id="sandbox"),
    pytest.param((True, "incus"), id="sandbox-incus"),
    pytest.param((False, "lxd"), id="real", marks=REAL_LXD),
    pytest.param((False, "incus"), id="incus", marks=REAL_INCUS),
]


@dataclass(frozen=True)
class Lxd:
    """One server under test, of the `flavour` lxd or incus. `kill` ends it at once, `revive` brings it back at the same
    address.
    """

    flavour: str
    url: str
    fingerprint: str
    driver: LxdDriver
    kill: Callable[[], Awaitable[None]]
    revive: Callable[[], Awaitable[None]]


@pytest.fixture(scope="session")
def scheduler_pair() -> KeyPair:
    """As whom the scheduler comes."""
    return make_certificate("scheduler", now=datetime.now(UTC), client=True)


@pytest.fixture(params=VARIANTS)
def lxds(
    request: pytest.FixtureRequest, lxd_reactor: IReactor, lxd_admin: KeyPair, scheduler_pair: KeyPair
) -> Iterator[tuple[Lxd, ...]]:
    """Three standalone servers that trust the scheduler and hold nothing."""
    simulated, flavour = request.param
    if simulated:
        sandboxes = [_sandbox(f"node-{number}", lxd_admin, flavour) for number in (1, 2, 3)]
        servers = _started(sandboxes, lxd_reactor, lxd_admin)
        _finish(_trust(servers, scheduler_pair))
        yield servers
        _end(servers, sandboxes)
        return
    reals = request.getfixturevalue({"lxd": "fresh_lxds", "incus": "fresh_incus"}[flavour])
    servers = tuple(_real(real.daemon, real.driver) for real in reals)
    _finish(_trust(servers, scheduler_pair))
    yield servers


@pytest.fixture(params=VARIANTS)
def members(
    request: pytest.FixtureRequest, lxd_reactor: IReactor, lxd_admin: KeyPair, scheduler_pair: KeyPair
) -> Iterator[tuple[Lxd, ...]]:
    """The three members of a cluster that trusts the scheduler and holds nothing: k1, k2 and k3."""
    simulated, flavour = request.param
    if simulated:
        database = Database(clustered=True)
        sandboxes = [_sandbox(f"k{number}", lxd_admin, flavour, database) for number in (1, 2, 3)]
        servers = _started(sandboxes, lxd_reactor, lxd_admin)
        _finish(_trust(servers[:1], scheduler_pair))
        yield servers
        _end(servers, sandboxes)
        return
    cluster = request.getfixturevalue({"lxd": "fresh_cluster", "incus": "fresh_incus_cluster"}[flavour])
    servers = tuple(map(_real, cluster.daemons, cluster.drivers))
    _finish(_trust(servers[:1], scheduler_pair))
    yield servers


def _real(daemon: LxdDaemon, driver: LxdDriver) -> Lxd:
    return Lxd(daemon.flavour.name, daemon.url, daemon.fingerprint, driver, daemon.kill, daemon.revive)


def _sandbox(name: str, admin: KeyPair, flavour: str, database: Database | None = None) -> SandboxServer:
    state = ServerState(name, flavour=flavour, database=database)
    state.trust(admin.certificate, name="admin")
    keypair = make_certificate(name, now=datetime.now(UTC))
    return SandboxServer(state, the_reactor(), keypair=keypair)  # type: ignore[arg-type]  # all that both ask for


def _started(sandboxes: list[SandboxServer], reactor: IReactor, admin: KeyPair) -> tuple[Lxd, ...]:
    for sandbox in sandboxes:
        _finish(sandbox.start())
    return tuple(
        Lxd(
            sandbox.state.flavour,
            sandbox.url,
            sandbox.keypair.fingerprint,
            LxdDriver(sandbox.url, reactor, admin, sandbox.keypair.fingerprint),
            sandbox.stop,
            sandbox.start,
        )
        for sandbox in sandboxes
    )


def _end(servers: tuple[Lxd, ...], sandboxes: list[SandboxServer]) -> None:
    for server, sandbox in zip(servers, sandboxes, strict=True):
        _finish(server.driver.aclose())
        _finish(sandbox.stop())


async def _trust(servers: tuple[Lxd, ...], pair: KeyPair) -> None:
    for server in servers:
        await server.driver.trust(pair.cert_pem, name="scheduler")


def _finish(work: Coroutine[Deferred[Any], Any, None]) -> None:
    blockon(Deferred.fromCoroutine(work))
