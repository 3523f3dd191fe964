"""What one connection to Redis takes of a server."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from lxdsched.ledger.wire import MOST_REPLY, LinkError, Wire

MIB = 1024**2
REPLY = MOST_REPLY * 3 // 4


def connected() -> Wire:
    """Make a connection."""
    wire = Wire("redis.example:6379")
    wire.makeConnection(StringTransport())
    return wire


def say(wire: Wire, size: int) -> None:
    """Have the server say a long reply in pieces."""
    wire.dataReceived(b"$%d\r\n" % size)
    for _ in range(size // MIB):
        wire.dataReceived(b"x" * MIB)
    wire.dataReceived(b"\r\n")


def test_a_reply_that_has_no_end_is_not_kept() -> None:
    wire = connected()
    failed: list[Failure] = []
    wire.ask("PING").addErrback(failed.append)
    say(wire, 2 * MOST_REPLY)
    assert [str(each.value) for each in failed] == ["redis.example:6379 says more than 32 MiB at once"]
    assert failed[0].check(LinkError)
    assert cast(StringTransport, wire.transport).disconnected


def test_many_long_replies_are_taken() -> None:
    wire = connected()
    heard: list[Any] = []
    for _ in range(2):
        wire.ask("PING").addCallback(heard.append)
        say(wire, REPLY)
    assert [len(each) for each in heard] == [REPLY, REPLY]
