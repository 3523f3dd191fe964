"""Lets connections in, one after the other, before anything is spent on them: no TLS, no HTTP, no object of either."""

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
_HANDSHAKE = 0.002
"""Seconds of our time that it takes."""
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
        self.work = _HANDSHAKE if secure else 0.0
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
        return cast(IProtocol, _Doorstep(self, addr, peer)) if admitted else None

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


class _Doorstep(Connected):
    """A connection that waits for its turn to come in, and is not read meanwhile."""

    transport: Any

    def __init__(self, admission: Admission, address: IAddress, peer: str) -> None:
        self._admission = admission
        self._address = address
        self._peer = peer
        self._guest: Guest | None = None
        self._waiting: IDelayedCall | None = None
        self._paused = False
        self._done = False  # it is in, or gone

    def connectionMade(self) -> None:  # noqa: N802
        """Begin to wait, if it has to."""
        crowd = self._admission.crowd
        self._guest = crowd.join(self._peer, self.transport.abortConnection)
        if wait := crowd.patience(self._guest):
            self._pause()
            self._waiting = self._admission.reactor.callLater(wait, self._queue)
        else:
            self._queue()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802, ARG002
        """Wait no more."""
        self._done = True
        if self._waiting is not None:
            self._waiting.cancel()
        if self._guest is not None:
            self._admission.crowd.leave(self._guest)

    def _queue(self) -> None:
        self._waiting = None
        self._admission.turns.ask(self._peer, self._enter, self._admission.work)
        if not self._done:
            self._pause()

    def _enter(self) -> None:
        if self._done:
            return
        self._done = True
        within: Any = self._admission.within.buildProtocol(self._address)
        if within is None:
            self.transport.abortConnection()
            return
        cast(Hosting, getattr(within, "wrappedProtocol", within)).guest = self._guest
        self.transport.protocol = within
        within.makeConnection(self.transport)
        if self._paused:
            self.transport.resumeProducing()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pauseProducing()
