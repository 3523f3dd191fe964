"""Three LXD servers, simulated or real, changed in the same way: through their own REST API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_twisted import blockon
from twisted.internet.defer import Deferred

from lxdsched.sandbox.certs import KeyPair, make_certificate
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from tests.lxd.driver import LxdDriver
from tests.lxd.rest import IReactor
from tests.support import the_reactor


@dataclass(frozen=True)
class Lxd:
    """One LXD server under test. `kill` ends it at once, `revive` brings it back at the same address."""

    url: str
    fingerprint: str
    driver: LxdDriver
    kill: Callable[[], Awaitable[None]]
    revive: Callable[[], Awaitable[None]]


@pytest.fixture(scope="session")
def scheduler_pair() -> KeyPair:
    """As whom the scheduler comes."""
    return make_certificate("scheduler", now=datetime.now(UTC), client=True)


@pytest.fixture(params=["sandbox", pytest.param("real", marks=pytest.mark.real_lxd)])
def lxds(
    request: pytest.FixtureRequest, lxd_reactor: IReactor, lxd_admin: KeyPair, scheduler_pair: KeyPair
) -> Iterator[tuple[Lxd, ...]]:
    """Three standalone servers that trust the scheduler and hold nothing."""
    if request.param == "real":
        servers = tuple(
            Lxd(real.daemon.url, real.daemon.fingerprint, real.driver, real.daemon.kill, real.daemon.revive)
            for real in request.getfixturevalue("fresh_lxds")
        )
        _finish(_trust(servers, scheduler_pair))
        yield servers
        return
    sandboxes = [_sandbox(number, lxd_admin) for number in (1, 2, 3)]
    for sandbox in sandboxes:
        _finish(sandbox.start())
    servers = tuple(
        Lxd(
            sandbox.url,
            sandbox.keypair.fingerprint,
            LxdDriver(sandbox.url, lxd_reactor, lxd_admin, sandbox.keypair.fingerprint),
            sandbox.stop,
            sandbox.start,
        )
        for sandbox in sandboxes
    )
    _finish(_trust(servers, scheduler_pair))
    yield servers
    for server, sandbox in zip(servers, sandboxes, strict=True):
        _finish(server.driver.aclose())
        _finish(sandbox.stop())


def _sandbox(number: int, admin: KeyPair) -> SandboxServer:
    name = f"node-{number}"
    state = ServerState(name)
    state.trust(admin.certificate, name="admin")
    return SandboxServer(state, the_reactor(),  # type: ignore[arg-type]  # it is all that both ask for
        keypair=make_certificate(name, now=datetime.now(UTC)))


async def _trust(servers: tuple[Lxd, ...], pair: KeyPair) -> None:
    for server in servers:
        await server.driver.trust(pair.cert_pem, name="scheduler")


def _finish(work: Coroutine[Deferred[Any], Any, None]) -> None:
    blockon(Deferred.fromCoroutine(work))
