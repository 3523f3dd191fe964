"""Serves all connections: hands the requests of those who may ask to their routes, logs each, and ends in order.

When the daemon stops, idle connections close, requests in flight finish, and later ones on the same connections are
told so. Every failure is JSON, that of no route as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any, BinaryIO, cast
from urllib.parse import unquote_to_bytes

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from lxdsched.access import Client, Shown
from lxdsched.listener.crowd import Crowd
from lxdsched.listener.settings import Bounds
from lxdsched.listener.turns import Turns
from lxdsched.quoting import cut
from lxdsched.tls import CertificateRefused, describe
from lxdsched.web.access import Gate
from lxdsched.web.channel import Channel, phrase
from lxdsched.web.errors import JSON, LINE_END, ApiError, internal_error, invalid_request, not_found, overloaded
from lxdsched.web.ids import HEADER, request_id
from lxdsched.web.lines import aside, whence

_ABSOLUTE = re.compile(rb"https?://[^/]*(.*)", re.IGNORECASE | re.DOTALL)
"""A whole URL, which a client may send in the place of a path."""

_NO_CONTENT = 204
_OWN_FAULTS = 500

MOST_PIECES = 1024
"""Pieces that a body may come in: each costs something, however short it is."""
MOST_METHOD = 16
"""Characters of a request's method that the log shows."""
MOST_PATH = 256
"""Characters of a request's path that the log shows: strangers are not to fill a disk with it."""

HEALTH = frozenset({b"/healthz", b"/readyz"})
"""What is answered to everybody and at any time, and is not worth a line of the log."""


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
        self.id = ""
        self.caller: Client | None = None  # who asks; None where that does not matter
        self._pieces = 0  # of the body
        self._counted: BoundedSite | None = None  # whose requests in flight this one is among

    def gotLength(self, length: int | None) -> None:  # noqa: ARG002, N802
        """Keep the body in memory: it is small, whatever its length is said to be."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        """Take a piece of the body, unless it makes the body too long, or is one too many."""
        self._pieces += 1
        if self._pieces > MOST_PIECES:
            self.channel.refuse(invalid_request(f"the body comes in more than {MOST_PIECES} pieces"))
        elif self.content.tell() + len(data) > self.channel.site.bounds.body:
            self.channel.refuse(self.channel.body_too_large())
        else:
            super().handleContentChunk(data)

    def body(self) -> bytes:
        """Return the whole body."""
        return self.content.read()

    def process(self) -> None:
        """Find out who asks, and answer when it is their turn."""
        site = cast(BoundedSite, self.channel.site)
        self.received_at = site.reactor.seconds()
        self.id = request_id(self.getHeader(HEADER.encode()))
        answer = self._route
        try:
            self._normalize()
            self.caller = site.gate.client(self)
            if self.caller is not None:
                self.notes.update(caller=self.caller.name)
        except ApiError as error:
            answer = partial(self.answer_error, error)
        except Exception:
            site.report(Failure(), self.path)
            answer = partial(self.answer_error, internal_error())
        caller = "" if self.caller is None else self.caller.name
        if self.channel.guest is not None:
            self.channel.guest.caller = caller
        site.turns.ask(self.channel.peer, partial(self._answer, answer), caller=caller)

    def _answer(self, answer: Callable[[], None]) -> None:
        if self._disconnected:
            return  # nobody waits for it any more
        self.channel.answering()
        try:
            answer()
        except Exception:
            self.channel.site.report(Failure(), self.path)
            self.answer_error(internal_error())

    def _normalize(self) -> None:
        """Make the path one that can be routed. ApiError when it cannot be."""
        try:
            self.method.decode("ascii")
            unquote_to_bytes(self.path).decode("utf-8")
        except UnicodeDecodeError:
            raise invalid_request("the method or path of the request is not text") from None
        if match := _ABSOLUTE.match(self.path):
            self.path = match[1] or b"/"
        paths = cast(BoundedSite, self.channel.site).paths
        if paths is not None and self.path not in paths:
            raise not_found()
        if not self.path.startswith(b"/"):
            raise invalid_request("the path of the request does not begin with a slash")

    def _route(self) -> None:
        """Hand the request to its route, unless too many are being answered."""
        site = cast(BoundedSite, self.channel.site)
        if self.path not in HEALTH:
            if site.in_flight >= site.bounds.requests:
                self.answer_error(overloaded())
                return
            site.in_flight += 1
            self._counted = site
        super().process()

    def headers(self, name: bytes) -> list[bytes]:
        """Return all values of a header."""
        return list(self.requestHeaders.getRawHeaders(name, ()))

    def certificate(self) -> Shown | None:
        """Return the certificate of its connection."""
        return self.channel.certificate()

    def finish(self) -> None:
        """End the answer."""
        self._ended()
        super().finish()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        """Take note that nobody waits for the answer any more."""
        self._ended()
        super().connectionLost(reason)

    def _ended(self) -> None:
        if self._counted is not None:
            self._counted.in_flight -= 1
            self._counted = None

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
        if self.channel is not None:
            cast(BoundedSite, self.channel.site).failed(error.code)
        if error.status < _OWN_FAULTS:
            self.notes.setdefault("reason", error.message)
        for name, value in error.headers.items():
            self.setHeader(name, value)
        return self.prepare(error.status, error.body())

    def prepare(self, status: int, body: bytes, content_type: str = JSON) -> bytes:
        """Set status and headers for a body; return what is to be written of it."""
        if content_type == JSON and status != _NO_CONTENT:
            body += LINE_END
        self.setResponseCode(status, phrase(status))
        self.setHeader(b"Server", b"lxdsched")
        self.setHeader(HEADER, self.id)
        if status != _NO_CONTENT:
            self.setHeader("Content-Type", content_type)
            self.setHeader(b"Content-Length", b"%d" % len(body))
        self.setHeader(b"Cache-Control", b"no-store")
        self.setHeader(b"X-Content-Type-Options", b"nosniff")
        if self.channel is not None:
            if self.channel.site.stopping:
                self.channel.persistent = False
            if not self.channel.persistent:
                self.setHeader(b"Connection", b"close")
        return b"" if self.method == b"HEAD" else body


class BoundedSite(Site):
    """Serves a resource on bounded connections, logs a line for every request, and stops without losing one.

    With `paths` there is nothing but those. `failed` is told the code of every error that is answered.
    """

    protocol = Channel  # type: ignore[assignment]  # HTTP/2 is not offered, so no channel to choose
    noisy = False
    _log = Logger()

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        *,
        bounds: Bounds,
        crowd: Crowd,
        turns: Turns,
        gate: Gate,
        paths: frozenset[bytes] | None = None,
        failed: Callable[[str], None] = lambda _code: None,
    ) -> None:
        super().__init__(resource, BoundedRequest, timeout=bounds.idle, reactor=reactor, parsePOSTFormSubmission=False)
        self.bounds = bounds
        self.crowd = crowd
        self.gate = gate
        self.paths = paths
        self.failed = failed
        self.turns = turns
        self.in_flight = 0
        self.stopping = False
        self.channels: set[Channel] = set()
        self._drained: Deferred[None] | None = None

    def log(self, request: BoundedRequest) -> None:  # type: ignore[override]  # the only requests there are
        """Log one line for a request that was answered."""
        seconds = 0.0 if request.received_at is None else self.reactor.seconds() - request.received_at
        self._log.emit(
            LogLevel.debug if request.path in HEALTH else LogLevel.info,
            "{method} {path} {status}",
            method=cut(request.method.decode("ascii", "replace"), MOST_METHOD),
            path=cut(request.path.decode("utf-8", "replace"), MOST_PATH),
            status=request.code,
            milliseconds=round(seconds * 1000, 2),
            request_id=request.id,
            log_aside=aside(request.getClientAddress(), request.notes),
            **whence(request.getClientAddress()),
            **request.notes,
        )

    def refused(self, channel: Channel, error: ApiError, request_id: str) -> None:
        """Log a request that was refused before it had come in."""
        self.failed(error.code)
        peer = channel.getPeer()
        self._log.info(
            "refused a request",
            reason=error.message,
            code=error.code,
            status=error.status,
            request_id=request_id,
            log_aside=aside(peer, {"reason": error.message}),
            **whence(peer),
        )

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802  # Twisted's name
        """Offer HTTP/1.1 alone to clients of TLS, whatever else is installed."""
        return [b"http/1.1"]

    def report(self, failure: Failure, path: bytes) -> None:
        """Log a failure of ours."""
        self._log.failure("answering {path} broke", failure, path=path.decode("utf-8", "replace"))

    def lost(self, channel: Channel, reason: Failure) -> None:
        """Take note that a connection is gone."""
        if reason.check(SSL.Error):
            known = isinstance(reason.value, CertificateRefused)
            peer, why = channel.getPeer(), describe(cast(SSL.Error, reason.value))
            self._log.emit(
                LogLevel.info if known else LogLevel.debug,
                "TLS with a client failed",
                reason=why,
                log_aside=aside(peer, {"reason": why}),
                **whence(peer),
            )
        self.channels.discard(channel)
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def renew(self) -> None:
        """Have every connection be another one soon: idle ones end now, others after their request."""
        for channel in list(self.channels):
            channel.retire()

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
            channel.drop()
