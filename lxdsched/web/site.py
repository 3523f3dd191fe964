"""What a client may do to a connection, and how connections end.

Requests are bounded while they arrive: a body that is too long, or a request that takes too long to send, is answered
at once and the rest of it is thrown away. What is not HTTP at all gets a JSON error too. When the daemon stops, idle
connections close, requests in flight finish, and later ones on the same connections are told so.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from io import BytesIO
from typing import Any, BinaryIO, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ISSLTransport, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from lxdsched.web.errors import ApiError, internal_error, invalid_request, shutting_down

MOST_BODY = 64 * 1024
"""Bytes that a request's body may have."""
TIME_TO_SEND = 10.0
"""Seconds that a client has to send a request, from its first byte to its last."""
IDLE = 75.0
"""Seconds that a connection may wait for its next request."""
LINGER = 2.0
"""Seconds that a refused client has to read why before the connection is dropped."""

_ABSOLUTE = re.compile(rb"https?://[^/]*(.*)", re.IGNORECASE | re.DOTALL)
"""A whole URL, which a client may send in the place of a path."""

GRACE = 0.5
"""Seconds that a new connection has to send its first request when the daemon stops."""

_PHRASES = {413: b"Content Too Large", 422: b"Unprocessable Content"}
"""Reason phrases of RFC 9110; those of Python before 3.13 are older."""

_QUIET = frozenset({b"/healthz", b"/readyz"})


class BoundedRequest(Request):
    """A request whose body is bounded while it arrives, and whose every failure is JSON.

    `notes` are what the routes want to see in the request's log line.
    """

    channel: Channel
    content: BinaryIO

    def __init__(self, channel: Channel, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self.notes: dict[str, object] = {}
        self.received_at: float | None = None

    def gotLength(self, length: int | None) -> None:  # noqa: ARG002, N802
        """Keep the body in memory: it is small, whatever its length is said to be."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        """Take a piece of the body, unless it makes the body too long."""
        if self.content.tell() + len(data) > MOST_BODY:
            self.channel.refuse(_too_large())
        else:
            super().handleContentChunk(data)

    def body(self) -> bytes:
        """Return the whole body."""
        return self.content.read()

    def process(self) -> None:
        """Hand the request to its route, unless the daemon stops or the request cannot be routed at all."""
        self.received_at = self.channel.site.reactor.seconds()
        if self.channel.site.stopping:
            self.answer_error(shutting_down())
            return
        try:
            self.method.decode("ascii")
            unquote_to_bytes(self.path).decode("utf-8")
        except UnicodeDecodeError:
            self.answer_error(invalid_request("the method or path of the request is not text"))
            return
        if match := _ABSOLUTE.match(self.path):
            self.path = match[1] or b"/"
        if not self.path.startswith(b"/"):
            self.answer_error(invalid_request("the path of the request does not begin with a slash"))
            return
        super().process()

    def getRequestHostname(self) -> bytes:  # noqa: N802
        """Route by the path alone: whatever a client writes into its Host header, this is the host."""
        return b"localhost"

    def processingFailed(self, reason: Failure) -> Any:  # noqa: N802
        """Answer 500 in JSON for what no route caught, and log it."""
        self.channel.site.report(reason, self)
        if not self.startedWriting:
            self.answer_error(internal_error())
        return reason

    def answer_error(self, error: ApiError) -> None:
        """Answer with an error and finish."""
        self.write(self.prepare_error(error))
        self.finish()

    def prepare_error(self, error: ApiError) -> bytes:
        """Set status and headers for an error; return its body."""
        self.notes.setdefault("code", error.code)
        for name, value in error.headers.items():
            self.setHeader(name, value)
        return self.prepare(error.status, error.body())

    def prepare(self, status: int, body: bytes) -> bytes:
        """Set status and headers for a JSON body; return what is to be written of it."""
        self.setResponseCode(status, _phrase(status))
        self.setHeader(b"Server", b"lxdsched")
        self.setHeader(b"Content-Type", b"application/json")
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.setHeader(b"Cache-Control", b"no-store")
        if self.channel is not None and self.channel.site.stopping:
            self.channel.persistent = False
            self.setHeader(b"Connection", b"close")
        return b"" if self.method == b"HEAD" else body


class Channel(HTTPChannel):
    """One client's connection."""

    site: BoundedSite

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
            self.refuse(_too_large())
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
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (error.status, _phrase(error.status), len(body), body)
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

        A request that is only coming in is left to come in: it is answered that it came too late.
        """
        if self._handlingRequest:
            self.persistent = False
        elif self._deadline is None and self._used:
            self.loseConnection()
        elif self._deadline is None:
            # Just connected: its first request may be on its way, and shall hear why it is not answered.
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


class BoundedSite(Site):
    """Serves a resource on bounded connections, logs a line for every request, and stops without losing one."""

    protocol = Channel  # type: ignore[assignment]  # HTTP/2 is not offered, so no channel to choose
    noisy = False
    _log = Logger()

    def __init__(self, resource: IResource, reactor: IReactorTime) -> None:
        super().__init__(resource, BoundedRequest, timeout=IDLE, reactor=reactor, parsePOSTFormSubmission=False)
        self.stopping = False
        self.channels: set[Channel] = set()
        self._drained: Deferred[None] | None = None

    def log(self, request: BoundedRequest) -> None:  # type: ignore[override]  # the only requests there are
        """Log one line for a request that was answered."""
        seconds = 0.0 if request.received_at is None else self.reactor.seconds() - request.received_at
        self._log.emit(
            LogLevel.debug if request.path in _QUIET else LogLevel.info,
            "{method} {path} {status}",
            method=request.method.decode("ascii", "replace"),
            path=request.path.decode("utf-8", "replace"),
            status=request.code,
            milliseconds=round(seconds * 1000, 2),
            client=_peer(request),
            **request.notes,
        )

    def refused(self, channel: Channel, error: ApiError) -> None:
        """Log a request that was refused before it had come in."""
        self._log.info(
            "refused a request: {reason}",
            reason=error.message,
            code=error.code,
            status=error.status,
            client=str(getattr(channel.getPeer(), "host", "")),
        )

    def report(self, failure: Failure, request: IRequest) -> None:
        """Log a failure of ours."""
        self._log.failure("answering {path} broke", failure, path=request.path.decode("utf-8", "replace"))

    def lost(self, channel: Channel) -> None:
        """Take note that a connection is gone."""
        self.channels.discard(channel)
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    async def drain(self, seconds: float) -> None:
        """End all connections: idle ones now, others after their request, and whatever is left after `seconds`."""
        self.stopping = True
        for channel in list(self.channels):
            channel.retire()
        if not self.channels:
            return
        drained: Deferred[None] = Deferred()
        self._drained = drained
        late = self.reactor.callLater(seconds, self._abort)
        await drained
        if late.active():
            late.cancel()

    def _abort(self) -> None:
        self._log.warn("dropping {count} connections that did not end in time", count=len(self.channels))
        for channel in list(self.channels):
            channel.tcp.abortConnection()


def _phrase(status: int) -> bytes:
    return _PHRASES.get(status) or HTTPStatus(status).phrase.encode()


def _too_large() -> ApiError:
    return ApiError(413, "request_too_large", f"the body is longer than {MOST_BODY // 1024} KiB")


def _peer(request: BoundedRequest) -> str:
    return str(getattr(request.getClientAddress(), "host", ""))
