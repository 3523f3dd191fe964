"""Below HTTP: TCP connections that are served over TLS, ignored or reset, and all of them kept in sight."""
# ruff: noqa: N802 - the names are Twisted's

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IReactorTCP,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.server import Site
from zope.interface import implementer

from lxdsched.sandbox.certs import KeyPair
from lxdsched.sandbox.faults import EVENTS, Fault


class IReactor(IReactorTCP, IReactorTime):
    """What a sandbox needs of a reactor."""


class RequestCounters:
    """What a server was asked, so that tests can say `one question, shared by all`.

    `paths` counts requests by path without query; `connections` counts TCP connections accepted. An event stream is
    counted among the paths when it begins, and is never `in_flight`.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Count from zero again."""
        self.paths: Counter[str] = Counter()
        self.connections = 0
        self.in_flight = 0
        self.max_in_flight = 0

    @property
    def total(self) -> int:
        """All requests."""
        return self.paths.total()

    def began(self, path: str) -> None:
        """Count a request in."""
        self.paths[path] += 1
        if path != EVENTS:
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def ended(self, path: str) -> None:
        """Count a request out: answered, or its connection lost."""
        # After a reset the requests of before still come to their end.
        if path != EVENTS:
            self.in_flight = max(0, self.in_flight - 1)


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """TLS as LXD has it: 1.3, and a client certificate that is asked for, not required, and never verified here.

    Whether a certificate is trusted is asked of the trust store at every request. Many servers may share one of these.
    """

    def __init__(self, keypair: KeyPair) -> None:
        self.keypair = keypair
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.use_certificate(keypair.certificate)
        context.use_privatekey(keypair.key)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        # OpenSSL refuses to resume a session that asked for a client certificate without a name for its context.
        context.set_session_id(b"lxdsched-sandbox")
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002, N803
        """A connection about to be shaken hands on."""
        return SSL.Connection(self._context, None)


@dataclass
class Condition:
    """How a server is at this moment: looked at for every connection and every request."""

    tls: ServerTLS
    fault: Fault | None = None
    requests: RequestCounters = field(default_factory=RequestCounters)

    @property
    def silent(self) -> bool:
        """Whether nothing comes over the event streams."""
        return self.fault is not None and self.fault.silences and EVENTS.startswith(self.fault.path)

    @property
    def lag(self) -> float:
        """How many seconds an event stream that is opened now is deaf at first."""
        return self.fault.lag if self.fault is not None and EVENTS.startswith(self.fault.path) else 0.0


class Gate(ServerFactory[Any]):
    """Where TCP connections come in: to TLS and HTTP, or into a fault below both."""

    noisy = False

    def __init__(self, condition: Condition, site: Site, reactor: IReactorTime) -> None:
        self._condition = condition
        self._open: dict[object, Callable[[], object]] = {}
        self._waiting: list[Deferred[None]] = []
        self._tls = _TrackingTLS(condition, self, site, reactor)

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Take a connection in."""
        self._condition.requests.connections += 1
        fault = self._condition.fault
        fate = "serve" if fault is None else fault.on_accept()
        if fate == "serve":
            return self._tls.buildProtocol(addr)
        return _Mute(self) if fate == "ignore" else _Resetting(self)

    def opened(self, connection: object, abort: Callable[[], object]) -> None:
        """Keep an eye on a connection, which `abort` resets."""
        self._open[connection] = abort

    def closed(self, connection: object) -> None:
        """A connection is gone."""
        self._open.pop(connection, None)
        if not self._open:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)

    async def abort_all(self) -> None:
        """Reset all connections and wait until they are gone."""
        for abort in list(self._open.values()):
            abort()
        if self._open:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter


class TrackedTLS(BufferingTLSTransport):
    """One connection: of HTTP, until an event stream takes it over."""

    factory: _TrackingTLS
    transport: Connection
    _streaming = False

    @property
    def silent(self) -> bool:
        """Whether what is sent over it is lost."""
        return self._streaming and self.factory.condition.silent

    def become_stream(self) -> float:
        """Be an event stream's from now on, which hears nothing in the seconds that are returned."""
        self._streaming = True
        # Twisted, in a hurry, has made `write` an attribute of each connection.
        write: Callable[[bytes], object] = self.write

        def audible(data: bytes) -> None:
            if not self.silent:
                write(data)

        self.write = audible  # type: ignore[method-assign]
        return self.factory.condition.lag

    def loseConnection(self) -> None:
        """Close the connection in order, unless it is silent. A stream's end waits for no answer of the other side."""
        if not self.silent:
            super().loseConnection()
            if self._streaming:
                self.transport.loseConnection()

    def makeConnection(self, transport: ITransport) -> None:
        """Begin, in sight of the gate."""
        super().makeConnection(transport)  # type: ignore[no-untyped-call]
        # As Go does: else every answer of some size waits for the client's delayed acknowledgement.
        self.transport.setTcpNoDelay(True)
        self.factory.gate.opened(self, self.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End, and be out of sight."""
        super().connectionLost(reason)
        # Last, so that who waits for the end of all connections finds everything above them at its end as well.
        self.factory.gate.closed(self)


class _TrackingTLS(TLSMemoryBIOFactory):
    protocol = TrackedTLS

    def __init__(self, condition: Condition, gate: Gate, site: Site, reactor: IReactorTime) -> None:
        super().__init__(_CurrentTLS(condition), False, site, reactor)
        self.gate = gate
        self.condition = condition


@implementer(IOpenSSLServerConnectionCreator)
class _CurrentTLS:
    """Shakes hands with the certificate that the server has at that moment."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N803
        return self._condition.tls.serverConnectionForTLS(tlsProtocol)


class _Mute(Protocol):
    """A connection into which everything vanishes."""

    transport: Connection

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def connectionMade(self) -> None:
        self._gate.opened(self, self.transport.abortConnection)

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002
        self._gate.closed(self)


class _Resetting(_Mute):
    """A connection that is reset as soon as it is there."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.abortConnection()
