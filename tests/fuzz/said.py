"""What a client of Redis makes of what a server says."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import StringTransport

from lxdsched.ledger.wire import Wire

ASKED = 3


def heard(chunks: list[bytes]) -> list[Any]:
    """Say something to somebody who waits for three replies; return what became of each."""
    wire = Wire("redis.example:6379")
    wire.makeConnection(StringTransport())
    outcomes: list[Any] = []
    for _ in range(ASKED):
        wire.ask("PING").addBoth(outcomes.append)
    for chunk in chunks:
        if wire.ended is None:
            wire.dataReceived(chunk)
    wire.end("it is over")
    return outcomes
