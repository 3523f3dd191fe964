"""The other ends of streams: one in memory, on a clock that the test moves, and one over real TLS."""
# ruff: noqa: N802 - the names are Twisted's

from __future__ import annotations

import json
from typing import Any, cast

from OpenSSL import SSL, crypto
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from twisted.web.websocket import WebSocketResource, WebSocketTransport
from wsproto import ConnectionType, WSConnection
from wsproto import events as frames
from zope.interface import implementer

from lxdsched.fleet.events import Event, EventStream
from lxdsched.sandbox.certs import KeyPair
from tests.support import eventually, the_reactor

CREATED = (
    '{"type":"lifecycle","timestamp":"2026-01-02T03:04:05.678Z","metadata":{"action":"instance-created",'
    '"source":"/1.0/instances/c1?project=team-a","context":{"type":"container"}},"location":"none","project":"team-a"}'
)
"""A message as LXD sends it."""
EVENT = Event("instance-created", "/1.0/instances/c1?project=team-a", "none")
"""What it says."""


class Peer:
    """A stream, what it tells us, and the host that is at its other end."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000.1)
        self.told: list[Event | str] = []
        request = frames.Request("[::1]:8443", "/1.0/events?type=lifecycle")
        self.stream = EventStream(self.clock, request, ping=5.0, heard=self.told.append, lost=self.told.append)
        self.transport = StringTransport()
        self._wire = WSConnection(ConnectionType.SERVER)
        self.stream.makeConnection(self.transport)  # type: ignore[no-untyped-call]
        (self.request,) = self.asked()

    def asked(self) -> list[frames.Event]:
        """What the stream has sent."""
        self._wire.receive_data(self.transport.value())
        self.transport.clear()
        return list(self._wire.events())

    def say(self, *said: frames.Event) -> None:
        """Send frames, all at once."""
        self.raw(self.packed(*said))

    def packed(self, *said: frames.Event) -> bytes:
        """Return what sends frames."""
        return b"".join(self._wire.send(each) for each in said)

    def raw(self, data: bytes) -> None:
        """Send bytes."""
        self.stream.dataReceived(data)

    def hang_up(self, reason: Exception | None = None) -> None:
        """End the connection."""
        self.stream.connectionLost(Failure(reason or ConnectionDone()))

    @property
    def dropped(self) -> bool:
        """Whether the connection was aborted, and nothing waits any more."""
        return bool(self.transport.disconnecting) and not self.clock.getDelayedCalls()


class Speaker:
    """A server's end of a stream, and the request that asked for it."""

    transport: WebSocketTransport

    def __init__(self, request: Request) -> None:
        self.request = request

    def negotiationStarted(self, transport: WebSocketTransport) -> None:
        self.transport = transport

    def negotiationFinished(self) -> None:
        self.transport.ping(b"keepalive")  # as LXD does

    def pongReceived(self, payload: bytes) -> None: ...

    def textMessageReceived(self, message: str) -> None: ...

    def bytesMessageReceived(self, data: bytes | bytearray) -> None: ...

    def connectionLost(self, reason: Failure) -> None: ...


class Answer(Resource):
    """Answers with JSON, as LXD does."""

    def __init__(self, code: int, **envelope: object) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._code = code
        self._envelope = envelope

    def render_GET(self, request: Request) -> bytes:
        request.setResponseCode(self._code)
        return json.dumps(self._envelope).encode()


class Page(Resource):
    """Answers with something for people."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def render_GET(self, request: Request) -> bytes:
        return b"<h1>Hello</h1>"


@implementer(IOpenSSLServerConnectionCreator)
class Tls:
    """Asks for a client certificate, and remembers the fingerprints of those that were shown."""

    def __init__(self, pair: KeyPair) -> None:
        self.shown: set[str] = set()
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate(pair.certificate)
        self._context.use_privatekey(pair.key)
        self._context.set_verify(SSL.VERIFY_PEER, self._remember)
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: N803
        return SSL.Connection(self._context, None)

    def _remember(self, _connection: object, shown: crypto.X509, *_: int) -> bool:
        self.shown.add(shown.digest("sha256").decode().replace(":", "").lower())
        return True


class StreamServer:
    """A server over TLS that trusts everybody at `/1.0` and streams at `/1.0/events`.

    `events` is another resource there, `http` speaks another protocol instead of HTTP, `tcp` instead of TLS.
    """

    def __init__(
        self,
        pair: KeyPair,
        *,
        events: Resource | None = None,
        http: Factory | None = None,
        tcp: Factory | None = None,
    ) -> None:
        self.streams: list[Speaker] = []
        self.tls = Tls(pair)
        self.url = ""
        self._port: IListeningPort | None = None
        environment = {"server_name": "node", "server": "lxd", "server_version": "5.0.2"}
        trusted = {"auth": "trusted", "api_extensions": ["instance_all_projects"], "environment": environment}
        root, one = Resource(), Answer(200, type="sync", metadata=trusted)
        root.putChild(b"1.0", one)
        one.putChild(b"events", events or WebSocketResource(self))
        self._gate: Any = WrappingFactory(tcp or TLSMemoryBIOFactory(self.tls, False, http or Site(root)))
        self._gate.protocol = ProtocolWrapper
        self._gate.noisy = False

    @property
    def connections(self) -> list[Any]:
        """What is connected, below TLS."""
        return list(self._gate.protocols)

    async def start(self, address: str = "127.0.0.1") -> None:
        """Listen."""
        self._port = the_reactor().listenTCP(0, self._gate, interface=address)
        number = cast(IPv4Address, self._port.getHost()).port
        self.url = f"https://[{address}]:{number}" if ":" in address else f"https://{address}:{number}"

    async def stop(self) -> None:
        """Listen no more, reset every connection and wait until they are gone."""
        port, self._port = self._port, None
        if port is not None:
            await cast(Any, port.stopListening())
        self.reset()
        await eventually(lambda: not self.connections)

    def reset(self) -> None:
        """Reset every connection."""
        for connection in self.connections:
            connection.abortConnection()

    def freeze(self) -> None:
        """Read nothing any more, on the connections of now."""
        for connection in self.connections:
            connection.transport.pauseProducing()

    def buildProtocol(self, request: Request) -> Speaker:
        """Begin a stream."""
        self.streams.append(Speaker(request))
        return self.streams[-1]
