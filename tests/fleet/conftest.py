"""Simulated hosts, one key pair for the scheduler, and certificates of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_twisted

from lxdsched.fleet.settings import HostSettings
from lxdsched.sandbox.certs import KeyPair, make_certificate
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from tests.support import host_settings, pinned, the_reactor

LISTING = "/1.0/instances"
"""Where the instances are listed."""

MakeServer = Callable[..., Awaitable[SandboxServer]]


def settings(server: SandboxServer, pair: KeyPair) -> HostSettings:
    """Configure a simulated host, its certificate pinned."""
    return host_settings(server.url, pair, pinned(server.keypair.fingerprint))


@pytest.fixture(scope="session")
def pair() -> KeyPair:
    """As whom the scheduler comes."""
    return make_certificate("scheduler", now=datetime.now(UTC), client=True)


@pytest.fixture(scope="session")
def server_pair() -> KeyPair:
    """A server certificate as LXD makes them: self-signed, naming only the host itself."""
    return make_certificate("node", now=datetime.now(UTC))


@pytest_twisted.async_yield_fixture
async def make_server(pair: KeyPair, server_pair: KeyPair) -> AsyncIterator[MakeServer]:
    """Start simulated hosts that trust the scheduler; they end with the test."""
    async with AsyncExitStack() as stack:

        async def make(keypair: KeyPair | None = None, **state: Any) -> SandboxServer:
            server_state = ServerState(state.pop("name", "node"), **state)
            server_state.trust(pair.certificate)
            server = SandboxServer(server_state, the_reactor(), keypair=keypair or server_pair)  # type: ignore[arg-type]
            await server.start()
            stack.push_async_callback(server.stop)
            return server

        yield make
