"""An LXD's event stream as a test needs it: all that came over one websocket, in the order of its coming."""
# ruff: noqa: N802, N803 - the names are Twisted's

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from zope.interface import implementer

from lxdsched.sandbox.certs import KeyPair
from tests.lxd.rest import IReactor

LIFECYCLE = "/1.0/events?type=lifecycle&all-projects=true"

POLL_SECONDS = 0.01
QUIET_SECONDS = 0.1
"""How long nothing more must come before all has come."""


class Heard(NamedTuple):
    """What matters of a lifecycle event."""

    action: str
    source: str
    location: str


class RejectedError(Exception):
    """The server answered the handshake with something else than a stream."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = b""


class Stream(Protocol):
    """One websocket, made by `listen`.

    `messages` are the texts that came, `binary` the other messages; `pings` are the payloads of the server's pings,
    answered unless `ponging` is False, and `pongs` those of its pongs. `farewell` is the code of its close frame, if
    any, and `end` the exception that Twisted calls the end of the connection, None until then.
    """

    transport: TLSMemoryBIOProtocol

    def __init__(self, path: str, reactor: IReactor, *, ponging: bool = True) -> None:
        self.messages: list[str] = []
        self.binary: list[bytes] = []
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.farewell: int | None = None
        self.end: type[BaseException] | None = None
        self.begun: Deferred[None] = Deferred()
        self.ponging = ponging
        self._path = path
        self._reactor = reactor
        self._websocket = WSConnection(ConnectionType.CLIENT)
        self._rejected: RejectedError | None = None
        self._text = ""
        self._bytes = b""

    @property
    def events(self) -> list[dict[str, Any]]:
        """The messages, decoded."""
        return [json.loads(message) for message in self.messages]

    @property
    def heard(self) -> list[Heard]:
        """What the messages say."""
        return [
            Heard(event["metadata"]["action"], event["metadata"]["source"], event["location"]) for event in self.events
        ]

    async def all_heard(self, count: int, seconds: float = 10.0) -> list[Heard]:
        """Wait for so many messages, and a little for more than that; take them away and return what they say."""
        await self.until(lambda: len(self.messages) >= count, seconds)
        heard = self.heard
        while True:
            await deferLater(self._reactor, QUIET_SECONDS)
            if len(heard) == len(self.messages):
                self.messages.clear()
                return heard
            heard = self.heard

    async def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        """Wait until a condition holds; fail when it does not come to hold."""
        end = self._reactor.seconds() + seconds
        while not condition():
            assert self._reactor.seconds() < end, f"waited in vain; messages: {self.messages}, end: {self.end}"
            await deferLater(self._reactor, POLL_SECONDS)

    def send(self, event: Event) -> None:
        """Send a frame."""
        self.transport.write(self._websocket.send(event))

    async def close(self) -> None:
        """Take leave as clients should, and wait for the end."""
        if self.end is None:
            self.send(CloseConnection(1000))
        await self.ended()

    async def abort(self) -> None:
        """Drop the connection, and wait for its end."""
        if self.end is None:
            self.transport.abortConnection()
        await self.ended()

    async def ended(self, seconds: float = 10.0) -> None:
        """Wait for the end."""
        await self.until(lambda: self.end is not None, seconds)

    def connectionMade(self) -> None:
        """Ask for the stream."""
        self.send(Request(host="lxd", target=self._path))

    def dataReceived(self, data: bytes) -> None:
        """Take frames in."""
        self._websocket.receive_data(data)
        for event in self._websocket.events():
            self._take(event)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the end."""
        self.end = reason.type
        if not self.begun.called:
            self.begun.errback(self._rejected or reason)

    def _take(self, event: Event) -> None:
        match event:
            case AcceptConnection():
                self.begun.callback(None)
            case RejectConnection():
                headers = {name.decode().lower(): value.decode() for name, value in event.headers}
                self._rejected = RejectedError(event.status_code, headers)
            case RejectData():
                assert self._rejected is not None
                self._rejected.body += event.data
                if event.body_finished:
                    self.transport.loseConnection()
            case Ping():
                self.pings.append(bytes(event.payload))
                # Who has taken leave may not answer any more.
                if self.ponging and self._websocket.state is ConnectionState.OPEN:
                    self.send(event.response())
            case Pong():
                self.pongs.append(bytes(event.payload))
            case TextMessage():
                self._text += event.data
                if event.message_finished:
                    self.messages.append(self._text)
                    self._text = ""
            case BytesMessage():
                self._bytes += event.data
                if event.message_finished:
                    self.binary.append(self._bytes)
                    self._bytes = b""
            case CloseConnection():
                self.farewell = event.code
                self.transport.loseConnection()


async def listen(
    url: str, reactor: IReactor, pair: KeyPair | None, path: str = LIFECYCLE, *, ponging: bool = True
) -> Stream:
    """Open a stream as the owner of `pair`, if any, to a server with any certificate. Raises RejectedError."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    endpoint = wrapClientTLS(_Anybody(pair), HostnameEndpoint(reactor, address.hostname.encode(), address.port))
    stream = Stream(path, reactor, ponging=ponging)
    await endpoint.connect(Factory.forProtocol(lambda: stream))
    try:
        await stream.begun
    except BaseException:
        await stream.abort()
        raise
    return stream


@asynccontextmanager
async def listening(
    url: str, reactor: IReactor, pair: KeyPair | None, path: str = LIFECYCLE, *, ponging: bool = True
) -> AsyncIterator[Stream]:
    """Listen for a while; see `listen`. The stream has pinged then: before that, an LXD may still miss what happens."""
    stream = await listen(url, reactor, pair, path, ponging=ponging)
    try:
        await stream.until(lambda: stream.pings)
        yield stream
    finally:
        await stream.abort()


@implementer(IOpenSSLClientConnectionCreator)
class _Anybody:
    """Shows a certificate, if any, and takes any server's."""

    def __init__(self, pair: KeyPair | None) -> None:
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if pair is not None:
            self._context.use_certificate(pair.certificate)
            self._context.use_privatekey(pair.key)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Make a connection that goes on with anybody."""
        return SSL.Connection(self._context, None)
