"""How a stream is opened, and what else a host may answer, byte for byte."""

from __future__ import annotations

from typing import cast

import pytest
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from wsproto import events as frames

from lxdsched.fleet.events import Rejected, StreamError
from tests.fleet.streams import CREATED, EVENT, Peer


def refused(host: Peer) -> Exception:
    """Return why the stream was not opened; nobody else must have heard of it."""
    problem: list[Failure] = []
    host.stream.opened.addErrback(problem.append)
    assert host.told == []
    assert host.dropped
    return cast(Exception, problem[0].value)


@pytest.fixture
def asked() -> Peer:
    """A host that has been asked for its stream."""
    return Peer()


def test_what_comes_together_with_the_agreement_is_told_after_it(asked: Peer) -> None:
    asked.stream.opened.addCallback(lambda _: asked.told.append("open"))
    asked.say(frames.AcceptConnection(), frames.TextMessage(CREATED), frames.CloseConnection(1001))
    assert asked.told == ["open", EVENT, "it closed its event stream: code 1001"]


def test_to_give_up_waiting_is_to_drop_the_connection(asked: Peer) -> None:
    asked.stream.opened.addErrback(lambda _: None)
    asked.stream.opened.cancel()
    assert asked.dropped
    asked.say(frames.AcceptConnection(), frames.TextMessage(CREATED))
    asked.hang_up()
    assert asked.told == []


@pytest.mark.parametrize(
    ("answer", "code", "error"),
    [
        (b"403 Forbidden\r\nContent-Length: 68\r\n\r\n"
         b'{"type":"error","error_code":403,"error":"not authorized","x":"yyy"}', 403, "not authorized"),
        (b"400 Bad Request\r\n\r\n" b'{"type":"error","error_code":403,"error":"not so"}', 403, "not so"),
        (b"404 Not Found\r\nContent-Length: 9\r\n\r\nnot found", 404, "that is no event stream"),
        (b"500 No\r\n\r\n<html>", 500, "that is no event stream"),
        (b"502 No\r\nContent-Length: 100\r\n\r\n<html>", 502, "that is no event stream"),
        (b"200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, "that is no event stream"),
        (b"302 Found\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n", 302, "that is no event stream"),
        (b"100 Continue\r\n\r\n", 100, "that is no event stream"),
        (b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096 + b"\r\n", 200,
         "that is no event stream"),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_stream_is_told_with_its_code(asked: Peer, answer: bytes, code: int, error: str) -> None:
    asked.raw(b"HTTP/1.1 " + answer)
    asked.hang_up()
    problem = refused(asked)
    assert isinstance(problem, Rejected)
    assert (problem.envelope.error_code, problem.envelope.error) == (code, error)


@pytest.mark.parametrize("answer", [b"100 Continue\r\n\r\n", b"404 Not Found\r\nContent-Length: 9\r\n\r\nnot found"])
def test_an_answer_that_has_come_is_told_at_once(asked: Peer, answer: bytes) -> None:
    asked.raw(b"HTTP/1.1 " + answer)
    assert isinstance(refused(asked), Rejected)


def test_an_answer_without_end_is_not_waited_for(asked: Peer) -> None:
    asked.raw(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(65):
        asked.raw(b"x" * 1024)
    assert isinstance(refused(asked), Rejected)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tea\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: \xff\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 101 Switching Protocols\r\n" + b"x: y\r\n" * 20_000,
    ],
)
def test_what_is_no_websocket_is_told_so(asked: Peer, answer: bytes) -> None:
    asked.raw(answer)
    problem = refused(asked)
    assert isinstance(problem, StreamError)
    assert str(problem).startswith("its /1.0/events is no websocket: ")


def test_a_connection_that_ends_before_the_stream_is_open_is_told_as_it_is(asked: Peer) -> None:
    asked.raw(b"HTTP/1.1 10")
    asked.hang_up(ConnectionLost())
    assert isinstance(refused(asked), ConnectionLost)
