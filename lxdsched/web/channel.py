"""One client's connection: what a client may do to it, and how it ends.

Requests are bounded while they arrive: a head or body that is too long, or a request that takes too long to send, is
answered at once and the rest of it is thrown away. What is not HTTP at all gets a JSON error too. A client that asks
too often is heard again when its time has come, and one that does not take its answer is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from lxdsched.access import Shown
from lxdsched.listener.crowd import Crowd, Guest
from lxdsched.listener.settings import Bounds
from lxdsched.listener.tls import shown_certificate
from lxdsched.listener.turns import Turns
from lxdsched.web.errors import LINE_END, ApiError, invalid_request
from lxdsched.web.ids import new_id

LINGER = 2.0
"""Seconds that a refused client has to read why before the connection is dropped."""

GRACE = 0.5
"""Seconds that a new connection has to send its first request when the daemon stops, and until what came in is read."""

_PHRASES = {413: b"Content Too Large", 422: b"Unprocessable Content"}
"""Reason phrases of RFC 9110; those of Python before 3.13 are older."""


class Owner(Protocol):
    """The site that a connection belongs to."""

    reactor: IReactorTime
    stopping: bool
    channels: set[Channel]
    bounds: Bounds
    crowd: Crowd
    turns: Turns

    def refused(self, channel: Channel, error: ApiError, request_id: str) -> None:
        """Take note that a request was refused before it had come in."""

    def lost(self, channel: Channel, reason: Failure) -> None:
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
        self._retiring = False  # while a request may be on its way that would be the last one
        self._last = False  # whether the next request is the last one
        self._deadline: IDelayedCall | None = None
        self._begun = False  # whether a byte of a request has come in
        self._overdue = False  # whether what is being waited for should have come
        self._unread: IDelayedCall | None = None  # while an answer is not taken
        self._ending: IDelayedCall | None = None
        self._held: tuple[IDelayedCall, Request] | None = None  # while it has to wait
        self.guest: Guest | None = None
        self.peer = ""  # what its address counts as
        self.problem: str | None = None  # what speaks against the chain of the client's certificate
        self._certificate: Shown | None = None
        self._looked = False

    @property
    def tcp(self) -> ITCPTransport:
        """The connection itself, TLS or not."""
        return cast(ITCPTransport, self.transport)

    def certificate(self) -> Shown | None:
        """Return the certificate that the client has shown and proven to own; None for none."""
        if not self._looked:
            self._looked = True
            self._certificate = shown_certificate(self.transport)
        return self._certificate

    def connectionMade(self) -> None:  # noqa: N802
        """Begin to count this connection."""
        site = self.site
        self.totalHeadersSize = self.MAX_LENGTH = site.bounds.head
        site.channels.add(self)
        super().connectionMade()
        self._deadline = self.callLater(site.bounds.sending, self._silent)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Count it no more."""
        self._hurry(None)
        for call in (self._unread, self._ending, self._held and self._held[0]):
            if call is not None and call.active():
                call.cancel()
        if self._held is not None and self._held[1] in self.requests:
            self.requests.remove(self._held[1])  # it was answered
        super().connectionLost(reason)
        if self.guest is not None:
            self.site.crowd.leave(self.guest)
            self.guest = None
        self.site.lost(self, reason)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Take bytes of a request; its first one starts the clock."""
        if self._refused:
            self.resetTimeout()
            return
        waited = self._deadline is None and not self._overdue
        if not self._handlingRequest and (waited or self._retiring or not self._begun):
            self._retiring = self._overdue = False
            self._begun = True
            self._hurry(self.site.bounds.sending)
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        """Take a line of a request's head."""
        if self._refused:
            return
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self.refuse(self._head_too_large())
            return
        try:
            super().lineReceived(line)
        except ValueError:  # a Content-Length of more digits than a number may have
            self._respondToBadRequestAndDisconnect()

    def headerReceived(self, line: bytes) -> bool:  # noqa: N802
        """Take a header, unless there are too many."""
        if self._receivedHeaderCount >= self.maxHeaders:
            self.refuse(self._head_too_large())
            return False
        return bool(super().headerReceived(line))

    def rawDataReceived(self, data: bytes) -> None:  # noqa: N802
        """Take bytes of a request's body."""
        if not self._refused:
            super().rawDataReceived(data)

    def allHeadersReceived(self) -> None:  # noqa: N802
        """Refuse a body that is declared too long before a byte of it is asked for."""
        if self.length is not None and self.length > self.site.bounds.body:
            self.refuse(self.body_too_large())
        else:
            super().allHeadersReceived()

    def allContentReceived(self) -> None:  # noqa: N802
        """Hand over a request that has come in whole."""
        if self._refused:
            return
        self._hurry(None)
        self._overdue = False
        if self._waitingForTransport:
            # It asks and asks, and does not read: what it gets would pile up here.
            self.drop()
            return
        self._used = True
        if self._last:
            self.persistent = False
        if self.guest is not None:
            self.site.crowd.ask(self.guest)
        super().allContentReceived()

    def answering(self) -> None:
        """Take note that a request is about to be answered."""
        if self.guest is not None:
            self.site.crowd.keep(self.guest)

    def requestDone(self, request: Request) -> None:  # noqa: N802
        """Go on with the next request, at once or when this client may ask again."""
        guest = self.guest
        if self.persistent and guest is not None and (wait := self.site.crowd.patience(guest)):
            # As long as this one is not done, nothing more is read than a buffer's worth.
            self.site.crowd.rest(guest)
            self._held = self.callLater(wait, self._hear), request
        else:
            self._done(request)

    def pauseProducing(self) -> None:  # noqa: N802
        """Give the client some time to take what it was answered."""
        if self._unread is None:
            self._unread = self.callLater(self.site.bounds.sending, self.drop)
        super().pauseProducing()

    def resumeProducing(self) -> None:  # noqa: N802
        """Take note that the answers are on their way."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resumeProducing()

    def timeoutConnection(self) -> None:  # noqa: N802
        """Close a connection that has waited for a request for long enough."""
        if self._unread_yet:
            self.resetTimeout()
        else:
            self.loseConnection()

    def loseConnection(self) -> None:  # noqa: N802
        """Close the connection when what is written has been taken, or when there was time enough for that."""
        if self._ending is None:
            self._ending = self.callLater(self.site.bounds.sending, self.drop)
        super().loseConnection()
        if isinstance(self.transport, TLSMemoryBIOProtocol) and self.transport.transport is not None:
            # The other side of TLS should say farewell too; it need not be waited for.
            self.transport.transport.loseConnection()

    def refuse(self, error: ApiError) -> None:
        """Answer a request that has not come in whole, and take nothing more from this client."""
        if self._refused:
            return
        self._refused = True
        self._hurry(None)
        request_id = new_id()
        self.site.refused(self, error, request_id)
        body = error.body() + LINE_END
        transport = self.tcp
        transport.write(
            b"HTTP/1.1 %d %s\r\nServer: lxdsched\r\nX-Request-Id: %s\r\nContent-Type: application/json\r\n"
            b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (error.status, phrase(error.status), request_id.encode(), len(body), body)
        )
        transport.unregisterProducer()  # type: ignore[attr-defined]  # else it would wait for the channel's leave
        if isinstance(transport, TLSMemoryBIOProtocol):
            transport.loseConnection()
        else:
            # Closing now, with bytes of the request unread, would reset the connection under the answer.
            transport.loseWriteConnection()
        self._deadline = self.callLater(LINGER, transport.abortConnection)

    def retire(self) -> None:
        """Close the connection if it is idle, else let its request be the last one.

        A request that is only coming in is left to come in, and answered: it may have been sent before we stopped.
        """
        self._last = True
        if self._handlingRequest:
            self.persistent = False
            if self._held is not None:
                self._held[0].reset(0)
        elif self._deadline is None and self._used and not self._unread_yet:
            self.loseConnection()
        elif self._deadline is None or not self._begun:
            # Just connected, or with something unread: a request may be on its way.
            self._retiring = True
            self._hurry(None)
            self._deadline = self.callLater(GRACE, self._leave)

    def body_too_large(self) -> ApiError:
        """Say that a body is longer than it may be."""
        return ApiError(413, "request_too_large", f"the body is longer than {_size(self.site.bounds.body)}")

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002, N802
        """Refuse a line of a request's head that does not end."""
        self.refuse(self._head_too_large())

    def _head_too_large(self) -> ApiError:
        most = f"{_size(self.site.bounds.head)} or {self.maxHeaders} lines"
        return ApiError(431, "headers_too_large", f"the request's head is longer than {most}")

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802  # Twisted's hook for what is not HTTP
        self.refuse(invalid_request("this is not an HTTP request that can be read"))

    def _hear(self) -> None:
        """Go on with a client that had to wait."""
        if self._held is not None:
            _, request = self._held
            self._held = None
            self._done(request)

    def _done(self, request: Request) -> None:
        if self.guest is not None and self.persistent:
            self.site.crowd.rest(self.guest)
        super().requestDone(request)

    def _hurry(self, seconds: float | None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.callLater(seconds, self._late)

    @property
    def _unread_yet(self) -> bool:
        """Whether something has come in that waits for its turn to be read: then it is not the client who is late."""
        return self.guest is not None and self.guest.unread

    def _put_off(self, what: Callable[[], None]) -> bool:
        """Have something done a little later if there is something unread until then; tell whether."""
        if self._unread_yet:
            self._deadline = self.callLater(GRACE, what)
        return self._unread_yet

    def _leave(self) -> None:
        if not self._put_off(self._leave):
            self.loseConnection()

    def _late(self) -> None:
        if self._put_off(self._late):
            return
        # Many clients may be late at the same moment: that shall hold up nobody else.
        self._deadline = None
        self._overdue = True
        self.site.turns.ask(self.peer, self._refuse_late)

    def _refuse_late(self) -> None:
        if self._overdue and self in self.site.channels:
            seconds = self.site.bounds.sending
            self.refuse(ApiError(408, "request_timeout", f"the request took longer than {seconds:g} s to send"))

    def _silent(self) -> None:
        if self._put_off(self._silent):
            return
        # Browsers and balancers make connections ahead of requests: an answer would be taken for that to the next one.
        self._deadline = None
        self._overdue = True
        self.site.turns.ask(self.peer, self._end_silent)

    def _end_silent(self) -> None:
        if self._overdue and self in self.site.channels:
            self.loseConnection()

    def drop(self) -> None:
        """End the connection at once; what has come in of it is not looked at any more."""
        self._refused = True
        self.tcp.abortConnection()


def phrase(status: int) -> bytes:
    """Return the reason phrase of a status."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase.encode()


def _size(amount: int) -> str:
    return f"{amount // 1024} KiB" if amount % 1024 == 0 else f"{amount} bytes"
