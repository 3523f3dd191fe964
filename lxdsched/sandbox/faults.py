"""Faults on demand: everything an LXD server has been seen to do to its clients, and some more.

A fault is a frozen value. It is given to `SandboxServer.fault`, takes effect at once, for connections that are open
as well, and lasts until it is replaced or taken away. All of them can be confined to the paths that begin with `path`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.web.http import Request
from zope.interface import implementer

from lxdsched.sandbox.answers import LXDError, error

EVENTS = "/1.0/events"
"""Where the event streams begin."""


class Exchange(Protocol):
    """One request at a faulty server: the means a fault has to spoil its answer."""

    @property
    def request(self) -> Request:
        """The request."""

    def proceed(self) -> None:
        """Answer as if there were no fault."""

    def capture(self, sink: Callable[[bytes], None]) -> None:
        """Answer as if there were no fault, but give the body to `sink`, which sends it as it likes."""

    def write_raw(self, data: bytes) -> None:
        """Write to the connection below HTTP."""

    def hang_up(self) -> None:
        """Close the connection in order, after what was written."""

    def abort(self) -> None:
        """Reset the connection at once."""

    def later(self, seconds: float, work: Callable[[], None]) -> IDelayedCall:
        """Do something later, unless the connection is lost before."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The base of all faults; `path` confines one to the requests whose path begins with it."""

    path: str = "/"

    listens: ClassVar[bool] = True
    """Whether the server keeps its port open."""
    accepts: ClassVar[Literal["serve", "ignore", "reset"]] = "serve"
    """What becomes of a new TCP connection."""
    silences: ClassVar[bool] = False
    """Whether nothing comes over the event streams that are open."""

    @property
    def lag(self) -> float:
        """How many seconds a new event stream is deaf at first."""
        return 0.0

    def on_accept(self) -> Literal["serve", "ignore", "reset"]:
        """What becomes of a new TCP connection."""
        return self.accepts

    def strike(self, exchange: Exchange) -> None:
        """Answer one request, badly."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Refuse(Fault):
    """The daemon is gone: nothing listens, and open connections are reset."""

    listens: ClassVar[bool] = False

    def strike(self, exchange: Exchange) -> None:
        """Reset the connection that was open when the daemon went."""
        exchange.abort()


@dataclass(frozen=True, kw_only=True)
class Blackhole(Fault):
    """TCP connections are accepted and nothing ever comes back, not even TLS; open ones fall silent."""

    accepts: ClassVar[Literal["serve", "ignore", "reset"]] = "ignore"
    silences: ClassVar[bool] = True

    def strike(self, exchange: Exchange) -> None:
        """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class Reset(Fault):
    """Connections are reset (RST): when they come in, or when they ask."""

    after: Literal["accept", "request"] = "accept"

    def on_accept(self) -> Literal["serve", "ignore", "reset"]:
        """Reset what comes in, or wait for its request."""
        return "reset" if self.after == "accept" else "serve"

    def strike(self, exchange: Exchange) -> None:
        """Reset the connection."""
        exchange.abort()


@dataclass(frozen=True, kw_only=True)
class Hang(Fault):
    """Requests are taken and never answered. `path="/1.0/instances"`: what a hung cluster member does to others."""

    def strike(self, exchange: Exchange) -> None:
        """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class Silence(Fault):
    """Event streams stay open, new ones too, but nothing comes over them: no event, no ping, no pong, not even an end.

    What happens meanwhile they never tell. Everything else works. (A stream that does not even begin is a `Hang`, one
    that is refused a `Status`, both with the `path` of the streams.)
    """

    path: str = EVENTS
    silences: ClassVar[bool] = True

    def strike(self, exchange: Exchange) -> None:
        """Let the stream begin."""
        exchange.proceed()


@dataclass(frozen=True, kw_only=True)
class Lag(Fault):
    """Event streams begin `seconds` after their handshake was answered: what happens in between they never tell.

    They ping when they begin. It happens to a busy LXD: its streams were deaf for up to 50 ms, and never after a ping.
    """

    path: str = EVENTS
    seconds: float = 0.05

    @property
    def lag(self) -> float:
        """These seconds."""
        return self.seconds

    def strike(self, exchange: Exchange) -> None:
        """Answer the handshake."""
        exchange.proceed()


@dataclass(frozen=True, kw_only=True)
class Delay(Fault):
    """The right answer, `seconds` late."""

    seconds: float

    def strike(self, exchange: Exchange) -> None:
        """Answer later."""
        exchange.later(self.seconds, exchange.proceed)


@dataclass(frozen=True, kw_only=True)
class Status(Fault):
    """An error in LXD's envelope. The default is what a server says for a moment while it stops."""

    code: int = 500
    message: str = "sql: database is closed"

    def strike(self, exchange: Exchange) -> None:
        """Answer with the error."""
        _reply(exchange, self.code, b"application/json", error(LXDError(self.code, self.message)).body)


@dataclass(frozen=True, kw_only=True)
class Garbage(Fault):
    """An answer that is none.

    `kind` is `not-json`, `truncated` (the right body's first half, as if it were all), `wrong-types`, `html`, `empty`,
    `binary` or `not-http`; `body`, when given, is sent instead as JSON.
    """

    kind: Literal["not-json", "truncated", "wrong-types", "html", "empty", "binary", "not-http"] = "not-json"
    body: bytes | None = None

    _BODIES: ClassVar[dict[str, tuple[bytes, bytes]]] = {
        "not-json": (b"application/json", b"this is no JSON\n"),
        "wrong-types": (
            b"application/json",
            b'{"type":7,"status":[],"status_code":"ok","error_code":{},"error":null,"metadata":"sixteen"}',
        ),
        "html": (b"text/html", b"<!doctype html><title>Welcome to nginx!</title><h1>It works</h1>"),
        "empty": (b"application/json", b""),
        "binary": (b"application/octet-stream", bytes(range(256))),
    }

    def strike(self, exchange: Exchange) -> None:
        """Answer with it."""
        if self.body is not None:
            _reply(exchange, 200, b"application/json", self.body)
        elif self.kind == "not-http":
            exchange.write_raw(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n")
            exchange.hang_up()
        elif self.kind == "truncated":
            exchange.capture(lambda body: _reply(exchange, 200, b"application/json", body[: len(body) // 2]))
        else:
            content_type, body = self._BODIES[self.kind]
            _reply(exchange, 200, content_type, body)


@dataclass(frozen=True, kw_only=True)
class CloseMidBody(Fault):
    """The right answer up to the middle of its body, then the end of the connection."""

    def strike(self, exchange: Exchange) -> None:
        """Announce the whole body and send half of it."""

        def send(body: bytes) -> None:
            request = exchange.request
            request.setHeader(b"content-length", str(len(body)).encode())
            request.write(body[: len(body) // 2])
            exchange.hang_up()

        exchange.capture(send)


@dataclass(frozen=True, kw_only=True)
class Drip(Fault):
    """The right answer: its headers at once, its body `size` bytes every `seconds`."""

    seconds: float = 1.0
    size: int = 1

    def strike(self, exchange: Exchange) -> None:
        """Answer drop by drop."""

        def send(body: bytes) -> None:
            request = exchange.request
            request.setHeader(b"content-length", str(len(body)).encode())
            # An empty write sends the headers.
            request.write(b"")

            def drop(start: int) -> None:
                request.write(body[start : start + self.size])
                if start + self.size < len(body):
                    exchange.later(self.seconds, lambda: drop(start + self.size))
                else:
                    request.finish()

            exchange.later(self.seconds, lambda: drop(0))

        exchange.capture(send)


@dataclass(frozen=True, kw_only=True)
class Flood(Fault):
    """A body of `size` bytes, or without end, as fast as it is read.

    `framing` says how it is announced: by its `length` (of an endless one, eight exbibytes), in `chunked` pieces, or
    not at all, to be ended by `close`. It begins like a real listing. None of it is held in memory.
    """

    size: int | None = None
    framing: Literal["length", "chunked", "close"] = "chunked"

    def strike(self, exchange: Exchange) -> None:
        """Answer with it."""
        request = exchange.request
        request.setHeader(b"content-type", b"application/json")
        write: Callable[[bytes], object] = request.write
        finish: Callable[[], object] = request.finish
        if self.framing == "length":
            size = 2**63 - 1 if self.size is None else self.size
            request.setHeader(b"content-length", str(size).encode())
        elif self.framing == "close":
            exchange.write_raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
            write, finish = exchange.write_raw, exchange.hang_up
        flood = _Flood(self.size, write, finish, request.unregisterProducer)
        request.registerProducer(flood, True)
        flood.resumeProducing()


_FLOOD_HEAD = (
    b'{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":["'
)
_FLOOD_CHUNK = b"a" * 16384


@implementer(IPushProducer)
@dataclass(eq=False)
class _Flood:
    """Writes until it is told to pause: what is not read is not made."""

    left: int | None
    write: Callable[[bytes], object]
    finish: Callable[[], object]
    unregister: Callable[[], object]
    flowing: bool = field(default=False, init=False)
    begun: bool = field(default=False, init=False)

    def resumeProducing(self) -> None:  # noqa: N802
        """Go on."""
        self.flowing = True
        while self.flowing:
            chunk = _FLOOD_CHUNK if self.begun else _FLOOD_HEAD
            self.begun = True
            if self.left is not None:
                chunk = chunk[: self.left]
                self.left -= len(chunk)
            if chunk:
                self.write(chunk)
            if self.left == 0:
                self.flowing = False
                self.unregister()
                self.finish()

    def pauseProducing(self) -> None:  # noqa: N802
        """Wait until there is room."""
        self.flowing = False

    def stopProducing(self) -> None:  # noqa: N802
        """End: nobody reads any more."""
        self.flowing = False


def _reply(exchange: Exchange, status: int, content_type: bytes, body: bytes) -> None:
    request = exchange.request
    request.setResponseCode(status)
    request.setHeader(b"content-type", content_type)
    request.setHeader(b"content-length", str(len(body)).encode())
    request.write(body)
    request.finish()
