"""Serves all connections: hands requests to their routes, logs each, and ends without losing one.

When the daemon stops, idle connections close, requests in flight finish, and later ones on the same connections are
told so. Every failure is JSON, that of no route as well.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from lxdsched.web.channel import MOST_BODY, Channel, phrase, too_large
from lxdsched.web.errors import ApiError, internal_error, invalid_request

IDLE = 75.0
"""Seconds that a connection may wait for its next request."""

_ABSOLUTE = re.compile(rb"https?://[^/]*(.*)", re.IGNORECASE | re.DOTALL)
"""A whole URL, which a client may send in the place of a path."""

_NO_CONTENT = 204
_OWN_FAULTS = 500

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
            self.channel.refuse(too_large())
        else:
            super().handleContentChunk(data)

    def body(self) -> bytes:
        """Return the whole body."""
        return self.content.read()

    def process(self) -> None:
        """Hand the request to its route, unless it cannot be routed at all."""
        self.received_at = self.channel.site.reactor.seconds()
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
        self.channel.site.report(reason, self.path)
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
        if error.status < _OWN_FAULTS:
            self.notes.setdefault("reason", error.message)
        for name, value in error.headers.items():
            self.setHeader(name, value)
        return self.prepare(error.status, error.body())

    def prepare(self, status: int, body: bytes, content_type: str = "application/json") -> bytes:
        """Set status and headers for a body; return what is to be written of it."""
        self.setResponseCode(status, phrase(status))
        self.setHeader(b"Server", b"lxdsched")
        if status != _NO_CONTENT:
            self.setHeader("Content-Type", content_type)
            self.setHeader(b"Content-Length", b"%d" % len(body))
        self.setHeader(b"Cache-Control", b"no-store")
        if self.channel is not None and self.channel.site.stopping:
            self.channel.persistent = False
            self.setHeader(b"Connection", b"close")
        return b"" if self.method == b"HEAD" else body


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
            client=_host(request.getClientAddress()),
            **request.notes,
        )

    def refused(self, channel: Channel, error: ApiError) -> None:
        """Log a request that was refused before it had come in."""
        self._log.info(
            "refused a request: {reason}",
            reason=error.message,
            code=error.code,
            status=error.status,
            client=_host(channel.getPeer()),
        )

    def report(self, failure: Failure, path: bytes) -> None:
        """Log a failure of ours."""
        self._log.failure("answering {path} broke", failure, path=path.decode("utf-8", "replace"))

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


def _host(address: object) -> str:
    return str(getattr(address, "host", ""))
