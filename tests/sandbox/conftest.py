"""One simulated server and a client of its own for each test, over real TLS on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import pytest_twisted
from twisted.internet import reactor  # noqa: TID251  # the tests run on the global reactor
from twisted.internet.defer import Deferred

from lxdsched.sandbox import KeyPair, SandboxServer, ServerState, make_certificate
from tests.sandbox.client import Client


@pytest.fixture(scope="session")
def server_pair() -> KeyPair:
    return make_certificate("vm", now=datetime.now(UTC))


@pytest.fixture(scope="session")
def client_pair() -> KeyPair:
    return make_certificate("client", now=datetime.now(UTC), client=True)


@pytest.fixture(scope="session")
def other_pair() -> KeyPair:
    return make_certificate("other", now=datetime.now(UTC), client=True)


@pytest.fixture
def state(client_pair: KeyPair) -> ServerState:
    state = ServerState("vm")
    state.trust(client_pair.certificate)
    return state


@pytest.fixture
def server(state: ServerState, server_pair: KeyPair) -> Iterator[SandboxServer]:
    """A server that listens."""
    server = SandboxServer(state, reactor, keypair=server_pair)  # type: ignore[arg-type]
    pytest_twisted.blockon(Deferred.fromCoroutine(server.start()))
    yield server
    pytest_twisted.blockon(Deferred.fromCoroutine(server.stop()))


@pytest.fixture
def client(server: SandboxServer, client_pair: KeyPair) -> Iterator[Client]:
    """The trusted client of that server."""
    client = Client(server.url, client_pair)
    yield client
    pytest_twisted.blockon(Deferred.fromCoroutine(client.aclose()))
