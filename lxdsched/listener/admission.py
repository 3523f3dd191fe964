"""Lets connections in, one after the other, before anything is spent on them: no TLS, no HTTP, no object of either.

What they send is read in turns too: to read can cost more than to answer, as with a handshake.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as Connected
from twisted.logger import Logger
from twisted.python.failure import Failure

from lxdsched.alarm import alarm
from lxdsched.listener.crowd import Crowd, Guest, peer_address
from lxdsched.listener.turns import Turns

_HANDSHAKES = 3.0
"""What a TLS handshake takes of a peer's budget beside the connection: about as much of our time as three requests."""
_RECEIVED = 16 * 1024
"""Bytes that are taken from the system at once: so many wait here of each connection, the others there."""
_PIECE = 4096
"""Bytes that are read in a turn."""
_CREDENTIALS = struct.Struct("3i")
"""Linux' `struct ucred`: process, user, group."""
_LETTING_IN = 2.0
"""Seconds within which all are let in who wait when we stop listening."""
_QUIET = 10.0
"""Seconds between two lines of the log about clients that were turned away."""


def address_of(peer: object) -> str:
    """Return the address of a peer; empty on a Unix socket."""
    return str(getattr(peer, "host", "") or "")


def _user(transport: object) -> str:
    """Say which user of this machine is at the other end of a Unix socket; empty where that cannot be known."""
    connection = getattr(transport, "socket", None)
    if not isinstance(connection, socket.socket):
        return ""
    with suppress(OSError):
        _, user, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        return f"user {user}"
    return ""


class Hosting(Protocol):
    """The protocol of a client who was let in, what it is among all, and what its address or user counts as."""

    guest: Guest | None
    peer: str


class Admission(Factory):
    """Hands the connections that may come in to the factory within, which speaks TLS where it is `secure`."""

    noisy = False
    _log = Logger()

    def __init__(
        self, within: IProtocolFactory, crowd: Crowd, turns: Turns, reactor: IReactorTime, *, secure: bool = False
    ) -> None:
        self.within = within
        self.crowd = crowd
        self.turns = turns
        self.reactor = reactor
        self._cost = 1.0 + _HANDSHAKES if secure else 1.0
        self._said_at = -_QUIET
        self._said = 0
        self._outside: set[_Passage] = set()
        self._emptied: Deferred[None] | None = None

    def doStart(self) -> None:  # noqa: N802  # Twisted's name
        """Start what is within."""
        super().doStart()
        self.within.doStart()

    def doStop(self) -> None:  # noqa: N802
        """Stop what is within."""
        super().doStop()
        self.within.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:  # type: ignore[override]  # noqa: N802
        """Make the protocol of a connection; None closes it."""
        host = address_of(addr)
        peer = peer_address(host) if host else ""
        admitted = self.crowd.admit(peer, self._cost)
        if self.crowd.turned_away.total() > self._said:
            self._tell(host)
        return cast(IProtocol, _Passage(self, addr, peer)) if admitted else None

    async def let_in(self) -> None:
        """Let all in who wait, now that nobody comes any more: what they have asked is not to be lost with them."""
        for passage in list(self._outside):
            passage.enter_soon()
        if self._outside:
            emptied = self._emptied = Deferred[None]()
            with alarm(self.reactor, _LETTING_IN, self._let_go):
                await emptied

    def waits(self, passage: _Passage) -> None:
        """Take note of one who has to wait until it is let in."""
        self._outside.add(passage)

    def waits_no_more(self, passage: _Passage) -> None:
        """Take note of one who is in, or gone."""
        self._outside.discard(passage)
        if not self._outside:
            self._let_go()

    def _let_go(self) -> None:
        emptied, self._emptied = self._emptied, None
        if emptied is not None:
            emptied.callback(None)

    def broken(self) -> None:
        """Log a failure of ours to let a client in, or to read what it has sent."""
        self._log.failure("serving a client broke")

    def _tell(self, host: str) -> None:
        now = self.reactor.seconds()
        if now - self._said_at < _QUIET:
            return
        self._said_at = now
        before, self._said = self._said, self.crowd.turned_away.total()
        self._log.warn(
            "connections are being dropped, since clients have more than they may: {count} since this was last said",
            count=self._said - before,
            client=host,
            connections=self.crowd.connections,
            **{f"over_{why}": count for why, count in self.crowd.turned_away.items()},
        )


class _Passage(Connected):
    """A connection: it waits for its turn to come in, and for one whenever there is something to read.

    To read can cost more than to answer: a body in pieces of one byte, TLS in records of one byte.
    """

    transport: Any

    def __init__(self, admission: Admission, address: IAddress, peer: str) -> None:
        self._admission = admission
        self._address = address
        self._peer = peer
        self._who = peer  # whose turn it is
        self._guest: Guest | None = None
        self._waiting: IDelayedCall | None = None
        self._within: Any = None
        self._unread = b""
        self._reading = False  # while it waits for its turn to be read
        self._paused = False
        self._gone = False

    def connectionMade(self) -> None:  # noqa: N802
        """Begin to wait, if it has to."""
        crowd = self._admission.crowd
        self.transport.bufferSize = _RECEIVED
        self._guest = crowd.join(self._peer, self._drop)
        self._admission.waits(self)
        self._who = self._peer or _user(self.transport)
        if wait := crowd.patience(self._guest):
            self._pause()
            self._waiting = self._admission.reactor.callLater(wait, self._queue)
        else:
            self._queue()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Wait no more."""
        self._gone = True
        self._unread = b""
        self._admission.waits_no_more(self)
        if self._waiting is not None:
            self._waiting.cancel()
        if self._guest is not None:
            self._admission.crowd.leave(self._guest)
        if self._within is not None:
            self._within.connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Read what came in when it has its turn: at once while there is time for all."""
        self._unread += data
        if self._reading or self._within is None:
            self._pause()  # what comes next can wait where it is
        else:
            self._read_on()

    def _read(self) -> None:
        if self._gone or self.transport.disconnecting:
            return  # we have hung up
        piece, self._unread = self._unread[:_PIECE], self._unread[_PIECE:]
        with self._guarded():
            self._within.dataReceived(piece)
        self._read_on()

    def _read_on(self) -> None:
        self._reading = bool(self._unread)
        if self._guest is not None:
            self._guest.unread = self._reading
        if self._reading:
            self._ask(self._read)
        else:
            self._resume()

    def enter_soon(self) -> None:
        """Wait for our turn alone, and not until the peer may ask again."""
        if self._waiting is not None:
            self._waiting.reset(0)

    def _queue(self) -> None:
        self._waiting = None
        self._ask(self._enter)

    def _enter(self) -> None:
        if self._gone:
            return
        with self._guarded():
            within: Any = self._admission.within.buildProtocol(self._address)
            hosting = cast(Hosting, getattr(within, "wrappedProtocol", within))
            hosting.guest, hosting.peer = self._guest, self._who
            self._within = within
            within.makeConnection(self.transport)
        self._read_on()
        self._admission.waits_no_more(self)

    def _ask(self, what: Callable[[], None]) -> None:
        caller = "" if self._guest is None else self._guest.caller
        self._admission.turns.ask(self._who, what, caller=caller)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """End the connection, and no other one, where we fail: in a turn there is nobody else to do it."""
        try:
            yield
        except Exception:
            self._admission.broken()
            self._drop()

    def _drop(self) -> None:
        self._gone = True
        self._unread = b""
        self.transport.abortConnection()

    def _pause(self) -> None:
        if not self._gone:
            self._paused = True
            self.transport.pauseProducing()

    def _resume(self) -> None:
        if self._paused and not self._gone:
            self._paused = False
            self.transport.resumeProducing()
