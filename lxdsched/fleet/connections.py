"""The connections to one host: made under its TLS policy, bounded in what they take in, and all known.

What a host may say is counted here, below HTTP, where nothing it sends can hide: headers, framing and body. The count
begins anew with every request that is written. What stays connected and is asked nothing further, a stream of events,
counts for itself, and is kept apart: who drops the connections of a question leaves it alone.
"""

from __future__ import annotations

import re
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from lxdsched.tls import HostPolicy

MOST_HEADERS = 64 * 1024
"""Bytes that the headers of an answer may have."""
MOST_STATUS = 64
"""Bytes within which the status of an answer has to be said."""
READ = 16 * 1024
"""Bytes that are taken in at once: in pieces of one byte they take long, and others wait meanwhile."""
_END_OF_HEADERS = re.compile(rb"\n\r?\n")
_STATUS = re.compile(rb"[^ \n]* ([^ \n]*)[ \n]")


class BadAnswer(Exception):  # noqa: N818
    """A host said more than it may, or otherwise than it may; the message says in a sentence what."""


@implementer(IAgentEndpointFactory)
class Connections:
    """Connects to one host, whatever a URL says.

    `tcp` is where; `most` is what an answer may have, in bytes.
    """

    def __init__(self, tcp: IStreamClientEndpoint, policy: HostPolicy, most: int) -> None:
        self.made = 0  # how many there have been so far
        self.most = most
        self.open: set[_Known] = set()
        self.streams: set[_Known] = set()
        self._endpoint = wrapClientTLS(policy, tcp)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: ARG002, N802  # Twisted's name
        """Return the one endpoint there is."""
        return _Endpoint(self._endpoint, self)

    async def attach(self, protocol: IProtocol) -> None:
        """Connect something that stays, and that bounds what it takes in by itself. It is one of `streams`."""
        await self._endpoint.connect(_StreamFactory(protocol, self.streams))

    def abort(self) -> None:
        """Drop every connection at once, but for the streams."""
        for connection in list(self.open):
            connection.abortConnection()

    def abort_all(self) -> None:
        """Drop every connection at once, the streams too."""
        for connection in [*self.open, *self.streams]:
            connection.abortConnection()


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Connects, and puts a bound between the connection and who asked for it."""

    def __init__(self, endpoint: IStreamClientEndpoint, connections: Connections) -> None:
        self._endpoint = endpoint
        self._connections = connections

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        factory = _Factory(protocolFactory, self._connections)
        return self._endpoint.connect(factory).addCallback(lambda bounded: cast(_Bounded, bounded).wrappedProtocol)


class _Known(ProtocolWrapper):
    """A connection that is in a set for as long as there is one."""

    def __init__(self, factory: WrappingFactory, wrapped: IProtocol, among: set[_Known]) -> None:
        super().__init__(factory, wrapped)  # type: ignore[arg-type]  # it is one
        self._among = among

    def makeConnection(self, transport: Any) -> None:  # noqa: N802
        self._among.add(self)
        # Twisted lets each of its connections say how much it reads, and TLS stands between.
        transport.transport.bufferSize = READ
        super().makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        self._among.discard(self)
        super().connectionLost(reason)


class _Quiet(Factory):
    noisy = False


class _StreamFactory(WrappingFactory):
    noisy = False

    def __init__(self, stream: IProtocol, streams: set[_Known]) -> None:
        super().__init__(_Quiet())
        self._stream = stream
        self._streams = streams

    def buildProtocol(self, addr: Any) -> _Known:  # noqa: ARG002, N802
        return _Known(self, self._stream, self._streams)


class _Factory(WrappingFactory):
    noisy = False

    def __init__(self, wrapped: IProtocolFactory, connections: Connections) -> None:
        super().__init__(wrapped)
        self.connections = connections

    def buildProtocol(self, addr: Any) -> _Bounded:  # noqa: N802
        return _Bounded(self, self.wrappedFactory.buildProtocol(addr))


class _Bounded(_Known):
    """A connection that is dropped when an answer gets too long."""

    factory: _Factory

    def __init__(self, factory: _Factory, wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped, factory.connections.open)
        self._received = 0
        self._headers: bytearray | None = bytearray()  # what has come in of them; None once they are through
        self._wrong: BadAnswer | None = None

    def makeConnection(self, transport: Any) -> None:  # noqa: N802
        self.factory.connections.made += 1
        super().makeConnection(transport)

    def write(self, data: bytes) -> None:
        self._ask()
        super().write(data)

    def writeSequence(self, data: Any) -> None:  # noqa: N802
        self._ask()
        super().writeSequence(data)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        if self._wrong is not None:
            return
        self._received += len(data)
        most, what = self.factory.connections.most, "answer is"
        if self._headers is not None:
            before = len(self._headers)
            self._headers += data
            status = _STATUS.match(self._headers, 0, MOST_STATUS)
            if status is None and len(self._headers) >= MOST_STATUS:
                self._refuse("it does not speak HTTP")
                return
            if status is not None and _announces(status[1]):
                self._refuse("it announces an answer before it gives one")
                return
            if _END_OF_HEADERS.search(self._headers, max(before - 2, 0)):
                self._headers = None
            else:
                most, what = MOST_HEADERS, "headers are"
        if self._received > most:
            self._refuse(f"its {what} longer than {most // 1024} KiB")
        else:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        super().connectionLost(reason if self._wrong is None else Failure(self._wrong))

    def _refuse(self, why: str) -> None:
        self._wrong = BadAnswer(why)
        self.abortConnection()

    def _ask(self) -> None:
        self._received = 0
        self._headers = bytearray()


def _announces(status: bytes) -> bool:
    """Tell whether a status only says that an answer will come (1xx): for what we ask, LXD has none.

    Twisted logs each that comes, and there is room for a million of them in what a host may say.
    """
    try:
        return 100 <= int(status) < 200  # noqa: PLR2004
    except ValueError:
        return False
