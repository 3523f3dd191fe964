"""One client's connection: what a client may do to it, and how it ends.

Requests are bounded while they arrive: a body that is too long, or a request that takes too long to send, is answered
at once and the rest of it is thrown away. What is not HTTP at all gets a JSON error too.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Protocol, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ISSLTransport, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from lxdsched.web.errors import ApiError, invalid_request

MOST_BODY = 64 * 1024
"""Bytes that a request's body may have."""
TIME_TO_SEND = 10.0
"""Seconds that a client has to send a request, from its first byte to its last."""
LINGER = 2.0
"""Seconds that a refused client has to read why before the connection is dropped."""

GRACE = 0.5
"""Seconds that a new connection has to send its first request when the daemon stops."""

_PHRASES = {413: b"Content Too Large", 422: b"Unprocessable Content"}
"""Reason phrases of RFC 9110; those of Python before 3.13 are older."""


class Owner(Protocol):
    """The site that a connection belongs to."""

    reactor: IReactorTime
    stopping: bool
    channels: set[Channel]

    def refused(self, channel: Channel, error: ApiError) -> None:
        """Take note that a request was refused before it had come in."""

    def lost(self, channel: Channel) -> None:
        """Take note that a connection is gone."""

    def report(self, failure: Failure, path: bytes) -> None:
        """Take note of a failure of ours."""


class Channel(HTTPChannel):
    """One client's connection."""

    site: Owner

    def __init__(self) -> None:
        super().__init__()
        self._refused = False
        self._used = False  # whether a request has come in whole
        self._retiring = False
        self._deadline: IDelayedCall | None = None

    @property
    def tcp(self) -> ITCPTransport:
        """The connection itself, TLS or not."""
        return cast(ITCPTransport, self.transport)

    def connectionMade(self) -> None:  # noqa: N802
        """Begin to count this connection."""
        self.site.channels.add(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Count it no more."""
        self._hurry(None)
        super().connectionLost(reason)
        self.site.lost(self)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Take bytes of a request; its first one starts the clock."""
        if self._refused:
            self.resetTimeout()
            return
        if not self._handlingRequest and (self._deadline is None or self._retiring):
            self._retiring = False
            self._hurry(TIME_TO_SEND)
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        """Take a line of a request's head."""
        if self._refused:
            return
        try:
            super().lineReceived(line)
        except ValueError:  # a Content-Length of more digits than a number may have
            self._respondToBadRequestAndDisconnect()

    def rawDataReceived(self, data: bytes) -> None:  # noqa: N802
        """Take bytes of a request's body."""
        if not self._refused:
            super().rawDataReceived(data)

    def allHeadersReceived(self) -> None:  # noqa: N802
        """Refuse a body that is declared too long before a byte of it is asked for."""
        if self.length is not None and self.length > MOST_BODY:
            self.refuse(too_large())
        else:
            super().allHeadersReceived()

    def allContentReceived(self) -> None:  # noqa: N802
        """Hand over a request that has come in whole."""
        if self._refused:
            return
        self._hurry(None)
        if self._waitingForTransport:
            # It asks and asks, and does not read: what it gets would pile up here.
            self.tcp.abortConnection()
            return
        self._used = True
        super().allContentReceived()

    def refuse(self, error: ApiError) -> None:
        """Answer a request that has not come in whole, and take nothing more from this client."""
        if self._refused:
            return
        self._refused = True
        self._hurry(None)
        self.site.refused(self, error)
        body = error.body()
        transport = self.tcp
        transport.write(
            b"HTTP/1.1 %d %s\r\nServer: lxdsched\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (error.status, phrase(error.status), len(body), body)
        )
        transport.unregisterProducer()  # type: ignore[attr-defined]  # else it would wait for the channel's leave
        if ISSLTransport.providedBy(transport):
            transport.loseConnection()
        else:
            # Closing now, with bytes of the request unread, would reset the connection under the answer.
            transport.loseWriteConnection()
        self._deadline = self.callLater(LINGER, transport.abortConnection)

    def retire(self) -> None:
        """Close the connection if it is idle, else let its request be the last one.

        A request that is only coming in is left to come in, and answered: it may have been sent before we stopped.
        """
        if self._handlingRequest:
            self.persistent = False
        elif self._deadline is None and self._used:
            self.loseConnection()
        elif self._deadline is None:
            # Just connected: its first request may be on its way.
            self._retiring = True
            self._deadline = self.callLater(GRACE, self.loseConnection)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002, N802
        """Refuse a line of a request's head that does not end."""
        self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802  # Twisted's hook for what is not HTTP
        self.refuse(invalid_request("this is not an HTTP request that can be read"))

    def _hurry(self, seconds: float | None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.callLater(seconds, self._late)

    def _late(self) -> None:
        self._deadline = None
        self.refuse(ApiError(408, "request_timeout", f"the request took longer than {TIME_TO_SEND:g} s to send"))


def phrase(status: int) -> bytes:
    """Return the reason phrase of a status."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase.encode()


def too_large() -> ApiError:
    """Say that a body is longer than it may be."""
    return ApiError(413, "request_too_large", f"the body is longer than {MOST_BODY // 1024} KiB")
