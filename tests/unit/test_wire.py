"""What one connection to Redis takes of a server."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.error import ConnectionDone
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
    assert [str(each.value) for each in failed] == ["redis.example:6379 says more than 16 MiB at once"]
    assert failed[0].check(LinkError)
    assert cast(StringTransport, wire.transport).disconnected


def test_many_long_replies_are_taken() -> None:
    wire = connected()
    heard: list[Any] = []
    for _ in range(2):
        wire.ask("PING").addCallback(heard.append)
        say(wire, REPLY)
    assert [len(each) for each in heard] == [REPLY, REPLY]


def lines(wire: Wire, *said: bytes) -> None:
    """Have the server say some lines in one piece."""
    wire.dataReceived(b"".join(line + b"\r\n" for line in said))


def test_a_server_that_says_what_nobody_has_asked_for_is_hung_up_on_and_nothing_of_it_is_kept() -> None:
    wire = connected()
    heard: list[Any] = []
    wire.ask("PING").addCallback(heard.append)
    ended: list[str] = []
    wire.when_ended = ended.append
    lines(wire, b"+PONG", *[b"*0"] * 100_000)
    assert heard == [b"PONG"]
    assert ended == ["redis.example:6379 says what nobody has asked for"]
    assert cast(StringTransport, wire.transport).disconnected
    assert wire.replyQueue.pending == []
    late: list[Failure] = []
    wire.ask("PING").addErrback(late.append)
    assert [str(each.value) for each in late] == ended, "no stale reply is an answer"


def test_a_reply_that_was_asked_for_by_somebody_who_has_gone_is_none_too_many() -> None:
    wire = connected()
    heard: list[Any] = []
    gone = wire.ask("GET", "a").addErrback(lambda _cancelled: None)
    wire.ask("GET", "b").addCallback(heard.append)
    last = wire.ask("GET", "c").addErrback(lambda _cancelled: None)
    gone.cancel()
    last.cancel()
    lines(wire, b"+a", b"+b", b"+c")
    assert (heard, wire.ended) == ([b"b"], None)


def test_a_server_that_refuses_the_connection_before_it_is_asked_anything_is_quoted() -> None:
    wire = connected()
    lines(wire, b"-ERR max number of clients reached")
    assert wire.ended == "redis.example:6379 answers: ERR max number of clients reached"
    wire.connectionLost(Failure(ConnectionDone()))
    assert wire.ended == "redis.example:6379 answers: ERR max number of clients reached"


def test_what_is_left_unanswered_when_a_connection_is_lost_is_no_surprise() -> None:
    wire = connected()
    failed: list[Failure] = []
    for _ in range(3):
        wire.ask("PING").addErrback(failed.append)
    wire.connectionLost(Failure(ConnectionDone()))
    assert [str(each.value) for each in failed] == ["redis.example:6379 has closed the connection"] * 3


def test_a_reply_is_handed_on_as_it_was_parsed() -> None:
    """A look at each part of it would take seconds, where there are millions."""
    parsed = [[1], b"x", b"7"]
    assert connected().tryConvertData(parsed) is parsed
