"""A host's stream over real TLS: how it is opened, refused, broken and dropped."""
# ruff: noqa: N802 - the names are Twisted's

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from lxdsched.fleet.client import HostClient, HostError
from lxdsched.fleet.events import Event
from lxdsched.fleet.settings import Patience
from lxdsched.model import State
from lxdsched.names import Names
from lxdsched.sandbox.certs import KeyPair
from lxdsched.tls import FirstUse, Trust
from tests.fleet.streams import CREATED, EVENT, Answer, Page, StreamServer
from tests.support import eventually, host_settings, pinned, the_reactor

EVENTS = b"/1.0/events?type=lifecycle&all-projects=true"


class Listener:
    """A client of a server, and what its stream tells."""

    def __init__(self, client: HostClient) -> None:
        self.client = client
        self.told: list[Event | str] = []

    def listen(self) -> Deferred[Any]:
        """Open the stream."""
        return Deferred.fromCoroutine(self.client.listen(self.told.append, self.told.append))

    async def refusal(self) -> HostError:
        """Fail to open the stream, and leave nothing of it."""
        with pytest.raises(HostError) as caught:
            await self.listen()
        await eventually(lambda: not self.streams)
        assert self.told == []
        return caught.value

    @property
    def streams(self) -> int:
        """How many connections for streams there are."""
        return len(self.client._connections.streams)


class Start:
    """Starts servers and listeners, which end with the test."""

    def __init__(self, stack: AsyncExitStack, pair: KeyPair, server_pair: KeyPair) -> None:
        self._stack = stack
        self._pair = pair
        self._server_pair = server_pair

    async def server(self, address: str = "127.0.0.1", **what: Any) -> StreamServer:
        """A server; `what` it does is StreamServer's."""
        server = StreamServer(self._server_pair, **what)
        await server.start(address)
        self._stack.push_async_callback(server.stop)
        return server

    def listener(self, server: StreamServer, trust: Trust | None = None, patience: Patience | None = None) -> Listener:
        """A listener that trusts the server, or by `trust`."""
        settings = host_settings(server.url, self._pair)
        trust = trust or pinned(self._server_pair.fingerprint)
        names = Names(the_reactor().callFromThread)
        client = HostClient(the_reactor(), names, settings, trust, patience or Patience())
        self._stack.push_async_callback(client.close)
        return Listener(client)


@pytest_twisted.async_yield_fixture
async def start(pair: KeyPair, server_pair: KeyPair) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:
        yield Start(stack, pair, server_pair)


@pytest_twisted.ensureDeferred
async def test_events_come_over_tls_as_the_client_that_we_are(start: Start, pair: KeyPair) -> None:
    server = await start.server()
    listener = start.listener(server)
    stream = await listener.listen()
    (speaker,) = server.streams
    assert speaker.request.uri == EVENTS
    assert speaker.request.getHeader("host") == server.url.removeprefix("https://")
    assert server.tls.shown == {pair.fingerprint}
    speaker.transport.sendTextMessage(CREATED)
    await eventually(lambda: listener.told == [EVENT])
    stream.close()
    stream.close()
    await eventually(lambda: not server.connections)
    assert listener.told == [EVENT]


@pytest_twisted.ensureDeferred
async def test_a_host_may_have_an_ipv6_address(start: Start) -> None:
    server = await start.server("::1")
    stream = await start.listener(server).listen()
    assert server.streams[0].request.getHeader("host") == server.url.removeprefix("https://")
    stream.close()


@pytest_twisted.ensureDeferred
async def test_a_stream_and_the_questions_leave_each_other_alone(start: Start) -> None:
    server = await start.server()
    listener = start.listener(server)
    await listener.client.greet()
    stream = await listener.listen()
    assert (listener.client.connected, listener.streams) == (1, 1)
    listener.client.abort()
    await eventually(lambda: len(server.connections) == 1)
    server.streams[0].transport.sendTextMessage(CREATED)
    await eventually(lambda: listener.told == [EVENT])
    await listener.client.greet()
    stream.close()
    await eventually(lambda: len(server.connections) == 1)
    await listener.client.greet()
    assert listener.client.connected == 2


@pytest_twisted.ensureDeferred
async def test_a_stream_whose_host_answers_pings_is_not_silent(start: Start) -> None:
    server = await start.server()
    listener = start.listener(server, patience=Patience(ping=0.2))
    stream = await listener.listen()
    await deferLater(the_reactor(), 0.8)
    assert listener.told == []
    stream.close()


@pytest_twisted.ensureDeferred
async def test_a_host_that_answers_nothing_any_more_is_lost(start: Start) -> None:
    server = await start.server()
    listener = start.listener(server, patience=Patience(ping=0.1))
    await listener.listen()
    server.freeze()
    await eventually(lambda: listener.told == ["its event stream is silent: nothing came for 0.2 s"])
    await eventually(lambda: not listener.streams)


@pytest_twisted.ensureDeferred
async def test_a_host_that_closes_its_stream_is_lost(start: Start) -> None:
    server = await start.server()
    listener = start.listener(server)
    await listener.listen()
    server.streams[0].transport.loseConnection()
    await eventually(lambda: listener.told == ["it closed its event stream: code 1000"])
    await eventually(lambda: not server.connections)


@pytest_twisted.ensureDeferred
async def test_a_host_that_resets_the_connection_is_lost(start: Start) -> None:
    server = await start.server()
    listener = start.listener(server)
    await listener.listen()
    server.reset()
    await eventually(lambda: len(listener.told) == 1)
    assert str(listener.told[0]).startswith("its event stream ended: the connection broke off")
    assert not listener.streams


@pytest_twisted.ensureDeferred
async def test_a_host_that_pings_and_reads_no_answer_is_hung_up_on(start: Start) -> None:
    server = await start.server()
    listener = start.listener(server)
    await listener.listen()
    server.freeze()
    # The kernel takes in a megabyte before anything is held up.
    server.connections[0].transport.getHandle().setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
    connection: Any
    (connection,) = listener.client._connections.streams
    connection.transport.transport.getHandle().setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)
    for _ in range(4000):
        server.streams[0].transport.ping(b"x" * 125)
    await eventually(lambda: len(listener.told) == 1)
    assert listener.told == ["it does not read what its event stream is sent"]


@pytest.mark.parametrize(
    ("events", "state", "reason"),
    [
        (Answer(403, type="error", error_code=403, error="not authorized"), State.RESTRICTED,
         "it does not let us see /1.0/events: not authorized"),
        (Answer(404, type="error", error_code=404, error="not found"), State.UNREACHABLE,
         "it answers /1.0/events with 404: not found"),
        (Answer(500, type="error", error_code=500, error="sql: database is closed"), State.UNREACHABLE,
         "it answers /1.0/events with 500: sql: database is closed"),
        (Page(), State.UNREACHABLE,
         "it answers /1.0/events with 200: that is no event stream"),
    ],
    ids=["403", "404", "500", "html"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_a_host_that_has_no_stream_for_us_says_why(start: Start, events: Any, state: State, reason: str) -> None:
    server = await start.server(events=events)
    error = await start.listener(server).refusal()
    assert (error.state, error.reason) == (state, reason)
    await eventually(lambda: not server.connections)


@pytest_twisted.ensureDeferred
async def test_another_certificate_than_the_pinned_one_is_refused_and_not_shown_ours(
    start: Start, server_pair: KeyPair
) -> None:
    server = await start.server()
    error = await start.listener(server, pinned("ab" * 32)).refusal()
    assert error.state is State.UNTRUSTED
    assert error.reason == (
        f"its certificate is not the pinned one: it shows {server_pair.fingerprint}, pinned is {'ab' * 32}"
    )
    await eventually(lambda: not server.connections)
    assert (server.tls.shown, server.streams) == (set(), [])


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_was_first_seen_by_a_question_may_not_change_for_the_stream(
    start: Start, pair: KeyPair, server_pair: KeyPair
) -> None:
    server = await start.server()
    trust = FirstUse()
    listener = start.listener(server, trust)
    await listener.client.greet()
    (await listener.listen()).close()
    trust._known = "ab" * 32
    error = await listener.refusal()
    assert error.state is State.UNTRUSTED
    assert error.reason.startswith(f"its certificate has changed: it shows {server_pair.fingerprint}, first seen was ")


class Mute(Protocol):
    """Says nothing."""


class Hasty(Protocol):
    """Hangs up when it is asked."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 101 Swi")  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]


class HangsUp(Protocol):
    """Hangs up at once."""

    def connectionMade(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_is_never_answered_leaves_nothing_when_it_is_given_up(start: Start) -> None:
    server = await start.server(http=Factory.forProtocol(Mute))
    listener = start.listener(server)
    opening = listener.listen()
    await eventually(lambda: listener.streams == 1 and bool(server.tls.shown))
    opening.cancel()
    with pytest.raises(CancelledError):
        await opening
    await eventually(lambda: not server.connections)
    assert (listener.streams, listener.told) == (0, [])


@pytest_twisted.ensureDeferred
async def test_a_tls_handshake_that_is_never_answered_leaves_nothing_either(start: Start) -> None:
    server = await start.server(tcp=Factory.forProtocol(Mute))
    listener = start.listener(server)
    opening = listener.listen()
    await eventually(lambda: len(server.connections) == 1)
    opening.cancel()
    with pytest.raises(CancelledError):
        await opening
    await eventually(lambda: not server.connections)
    assert listener.streams == 0


@pytest_twisted.ensureDeferred
async def test_a_host_that_hangs_up_before_the_stream_is_open_is_unreachable(start: Start) -> None:
    server = await start.server(http=Factory.forProtocol(Hasty))
    error = await start.listener(server).refusal()
    assert error.state is State.UNREACHABLE
    assert "Connection was closed cleanly" in error.reason


@pytest_twisted.ensureDeferred
async def test_a_host_that_hangs_up_before_tls_is_unreachable(start: Start) -> None:
    server = await start.server(tcp=Factory.forProtocol(HangsUp))
    error = await start.listener(server).refusal()
    assert error.state is State.UNREACHABLE


@pytest_twisted.ensureDeferred
async def test_a_host_where_nobody_listens_is_unreachable(start: Start) -> None:
    server = await start.server()
    await server.stop()
    error = await start.listener(server).refusal()
    assert error.state is State.UNREACHABLE
    assert error.reason.startswith("no connection: Connection refused")


def test_a_connection_that_is_being_made_is_given_up_with_who_waits_for_it(pair: KeyPair) -> None:
    reactor: Any = MemoryReactorClock()
    settings = host_settings("https://192.0.2.1:8443", pair)
    client = HostClient(reactor, Names(lambda work: work()), settings, pinned("0" * 64), Patience())
    opening = Listener(client).listen()
    assert len(reactor.tcpClients) == 1
    problems: list[Failure] = []
    opening.addErrback(problems.append)
    opening.cancel()
    assert [problem.type for problem in problems] == [CancelledError]
    assert reactor.connectors[0].stoppedConnecting
