"""The event streams of one server: websockets over which it says what happens, until somebody hangs up.

As LXD does, the server pings at once and then every ten seconds, and hangs up on who has not answered the last three;
on who sends it any message, too. A certificate that is trusted no more keeps its open streams.
"""
# ruff: noqa: N802 - the names are Twisted's

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Request
from twisted.web.websocket import WebSocketResource, WebSocketTransport
from wsproto.utilities import LocalProtocolError

from lxdsched.sandbox.events import Event
from lxdsched.sandbox.questions import Subscription
from lxdsched.sandbox.state import ServerState
from lxdsched.sandbox.transport import TrackedTLS

PING_SECONDS = 10.0

_MOST_UNANSWERED = 3


class Streams:
    """All open streams of one server, whose state's events they are. `ping` is in seconds."""

    def __init__(self, state: ServerState, clock: IReactorTime, ping: float = PING_SECONDS) -> None:
        self.ping = ping
        self.clock = clock
        self._state = state
        self._open: dict[_Stream, None] = {}
        state.database.listen(self._hear)

    def __len__(self) -> int:
        return len(self._open)

    def resource(self, subscription: Subscription) -> IResource:
        """What turns a request into a stream, if it is the beginning of a websocket."""
        return WebSocketResource(_Factory(self, subscription))

    def cut(self) -> None:
        """Reset the connections of all streams."""
        for stream in list(self._open):
            stream.connection.abortConnection()  # type: ignore[no-untyped-call]

    def send(self, message: str | bytes) -> None:
        """Send a message to every stream, whatever it subscribed to: text, or bytes as a binary message."""
        for stream in list(self._open):
            stream.send(message)

    def write(self, data: bytes) -> None:
        """Write to the connection of every stream, below the websocket."""
        for stream in list(self._open):
            stream.connection.write(data)  # type: ignore[no-untyped-call]

    def opened(self, stream: _Stream) -> None:
        """Count a stream in."""
        self._open[stream] = None

    def closed(self, stream: _Stream) -> None:
        """Count a stream out."""
        self._open.pop(stream, None)

    def _hear(self, event: Event) -> None:
        # What the members of a cluster cannot reach, they do not hear.
        if event.location != self._state.location and (self._state.offline or self._is_offline(event.location)):
            return
        hearing = [stream for stream in self._open if stream.wants(event)]
        if hearing:
            message = event.message(self._state.flavour)
            for stream in hearing:
                stream.send(message)

    def _is_offline(self, location: str) -> bool:
        member = self._state.database.members.get(location)
        return member is not None and member.offline


class _Factory:
    def __init__(self, streams: Streams, subscription: Subscription) -> None:
        self._streams = streams
        self._subscription = subscription

    def buildProtocol(self, request: Request) -> _Stream:
        # The site behind TLS makes nothing else than these connections.
        connection = cast(TrackedTLS, request.transport)
        return _Stream(self._streams, self._subscription, connection)


class _Stream:
    """One stream, from the handshake to the loss of its connection."""

    _transport: WebSocketTransport

    def __init__(self, streams: Streams, subscription: Subscription, connection: TrackedTLS) -> None:
        self.connection = connection
        self._streams = streams
        self._projects = subscription.projects
        self._hearing = False
        self._unanswered = 0
        self._ping: IDelayedCall | None = None

    def wants(self, event: Event) -> bool:
        return self._hearing and (self._projects is None or event.project in self._projects)

    def send(self, message: str | bytes) -> None:
        with self._hanging_up():
            if isinstance(message, str):
                self._transport.sendTextMessage(message)
            else:
                self._transport.sendBytesMessage(message)

    def negotiationStarted(self, transport: WebSocketTransport) -> None:
        self._transport = transport
        # HTTP is the connection's producer still, and TLS would wait for its end before it hangs up.
        transport.detachProducer()

    def negotiationFinished(self) -> None:
        lag = self.connection.become_stream()
        self._streams.opened(self)
        if lag:
            self._ping = self._streams.clock.callLater(lag, self._begin)
        else:
            self._begin()

    def pongReceived(self, payload: bytes) -> None:
        del payload
        self._unanswered = 0

    def textMessageReceived(self, message: str) -> None:
        del message
        self.connection.loseConnection()

    def bytesMessageReceived(self, data: bytes | bytearray) -> None:
        del data
        self.connection.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        del reason
        if self._ping is not None and self._ping.active():
            self._ping.cancel()
        self._streams.closed(self)

    def _begin(self) -> None:
        self._hearing = True
        self._keep_alive()

    def _keep_alive(self) -> None:
        self._ping = self._streams.clock.callLater(self._streams.ping, self._keep_alive)
        if self.connection.silent:
            return
        self._unanswered += 1
        if self._unanswered <= _MOST_UNANSWERED:
            with self._hanging_up():
                self._transport.ping(b"keepalive")
        elif self._unanswered == _MOST_UNANSWERED + 1:
            self.connection.loseConnection()
        else:
            # What was sent before the end is not even read.
            self.connection.abortConnection()  # type: ignore[no-untyped-call]

    @contextmanager
    def _hanging_up(self) -> Iterator[None]:
        """Send something, unless the other side has taken leave: then there is nobody to send it to any more."""
        try:
            yield
        except LocalProtocolError:
            self.connection.loseConnection()
