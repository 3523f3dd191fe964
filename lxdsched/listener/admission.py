"""Lets connections in, one after the other, before anything is spent on them: no TLS, no HTTP, no object of either.

What they send is counted too: where it takes time to read, it has to wait for its turn like everything else.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as Connected
from twisted.logger import Logger
from twisted.python.failure import Failure

from lxdsched.listener.crowd import Crowd, Guest, peer_address
from lxdsched.listener.turns import Turns

_HANDSHAKES = 3.0
"""What a TLS handshake takes of a peer's budget beside the connection: about as much of our time as three requests."""
_GREETINGS = 2
"""What a client of TLS says until it has shaken hands, in so many pieces."""
_PIECE = 4096
"""Bytes that are read at once."""
_LONG = 0.001
"""Seconds of our time that it may take to read them before there is a turn for the next ones."""
_QUIET = 10.0
"""Seconds between two lines of the log about clients that were turned away."""


def address_of(peer: object) -> str:
    """Return the address of a peer; empty on a Unix socket."""
    return str(getattr(peer, "host", "") or "")


class Hosting(Protocol):
    """The protocol of a client who was let in, and what it is among all."""

    guest: Guest | None


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
        self.greetings = _GREETINGS if secure else 0
        self._cost = 1.0 + _HANDSHAKES if secure else 1.0
        self._said_at = -_QUIET
        self._said = 0

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

    def broken(self) -> None:
        """Log a failure of ours to read what a client has sent."""
        self._log.failure("reading from a client broke")

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
    """A connection: it waits for its turn to come in, and what it sends is read in turns where that takes time.

    To read can cost more than to answer: a body in pieces of one byte, TLS in records of one byte.
    """

    transport: Any

    def __init__(self, admission: Admission, address: IAddress, peer: str) -> None:
        self._admission = admission
        self._address = address
        self._peer = peer
        self._guest: Guest | None = None
        self._waiting: IDelayedCall | None = None
        self._within: Any = None
        self._greetings = admission.greetings
        self._unread = b""
        self._reading = False  # while it waits for its turn to be read
        self._paused = False
        self._gone = False

    def connectionMade(self) -> None:  # noqa: N802
        """Begin to wait, if it has to."""
        crowd = self._admission.crowd
        self._guest = crowd.join(self._peer, self.transport.abortConnection)
        if wait := crowd.patience(self._guest):
            self._pause()
            self._waiting = self._admission.reactor.callLater(wait, self._queue)
        else:
            self._queue()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Wait no more."""
        self._gone = True
        self._unread = b""
        if self._waiting is not None:
            self._waiting.cancel()
        if self._guest is not None:
            self._admission.crowd.leave(self._guest)
        if self._within is not None:
            self._within.connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Read what came in: at once as long as that takes no time, and as much as came of it."""
        if self._reading:
            self._unread += data
            self._pause()
            return
        if self._greetings:
            # A handshake always takes time.
            self._greetings -= 1
            self._unread = data
            self._await_reading(0.0)
            return
        turns = self._admission.turns
        began, worked = turns.clock(), turns.worked
        self._within.dataReceived(data[:_PIECE])
        took = turns.clock() - began - (turns.worked - worked)  # but for answers, which had a turn
        self._unread = data[_PIECE:]
        if (self._unread or took > _LONG) and not self._gone:
            self._await_reading(took)

    def _await_reading(self, took: float) -> None:
        self._reading = True
        self._admission.turns.ask(self._peer, self._read, took)
        if self._reading:
            self._pause()

    def _read(self) -> None:
        if self._gone:
            return
        piece, self._unread = self._unread[:_PIECE], self._unread[_PIECE:]
        try:
            if piece:
                self._within.dataReceived(piece)
        except Exception:
            # In a turn there is nobody else to end the connection.
            self._admission.broken()
            self.transport.abortConnection()
            return
        if self._unread:
            self._admission.turns.ask(self._peer, self._read)
        else:
            self._reading = False
            self._resume()

    def _queue(self) -> None:
        self._waiting = None
        self._admission.turns.ask(self._peer, self._enter)
        if self._within is None:
            self._pause()

    def _enter(self) -> None:
        if self._gone:
            return
        within: Any = self._admission.within.buildProtocol(self._address)
        if within is None:
            self.transport.abortConnection()
            return
        cast(Hosting, getattr(within, "wrappedProtocol", within)).guest = self._guest
        self._within = within
        within.makeConnection(self.transport)
        self._resume()

    def _pause(self) -> None:
        if not self._gone:
            self._paused = True
            self.transport.pauseProducing()

    def _resume(self) -> None:
        if self._paused and not self._gone:
            self._paused = False
            self.transport.resumeProducing()
