"""Lets connections in, before anything is spent on them: no TLS, no HTTP, no object of either."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from lxdsched.listener.crowd import Crowd, peer_address

CONNECTING = 1.0
"""What a connection takes of a peer's budget."""
SHAKING_HANDS = 3.0
"""What its TLS handshake takes beside that: about as much of our time as three requests."""
_QUIET = 10.0
"""Seconds between two lines of the log about clients that were turned away."""


def address_of(peer: object) -> str:
    """Return the address of a peer; empty on a Unix socket."""
    return str(getattr(peer, "host", "") or "")


class Admission(Factory):
    """Hands the connections that may come in to the factory within. `cost` is what one takes of its peer's budget."""

    noisy = False
    _log = Logger()

    def __init__(self, within: IProtocolFactory, crowd: Crowd, clock: Any, cost: float) -> None:
        self._within = within
        self._crowd = crowd
        self._clock = clock
        self._cost = cost
        self._said_at = -_QUIET
        self._said = 0

    def doStart(self) -> None:  # noqa: N802  # Twisted's name
        """Start what is within."""
        super().doStart()
        self._within.doStart()

    def doStop(self) -> None:  # noqa: N802
        """Stop what is within."""
        super().doStop()
        self._within.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:  # type: ignore[override]  # noqa: N802
        """Make the protocol of a connection; None closes it."""
        host = address_of(addr)
        admitted = self._crowd.admit(peer_address(host) if host else "", self._cost)
        if self._crowd.turned_away.total() > self._said:
            self._tell(host)
        return self._within.buildProtocol(addr) if admitted else None

    def _tell(self, host: str) -> None:
        now = self._clock()
        if now - self._said_at < _QUIET:
            return
        self._said_at = now
        before, self._said = self._said, self._crowd.turned_away.total()
        self._log.warn(
            "connections are being dropped, since clients have more than they may: {count} since this was last said",
            count=self._said - before,
            client=host,
            connections=self._crowd.connections,
            **{f"over_{why}": count for why, count in self._crowd.turned_away.items()},
        )
