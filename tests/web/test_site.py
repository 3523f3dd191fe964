"""What a client may do to a connection."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from lxdsched.sandbox.faults import Delay, Hang
from lxdsched.web import channel
from tests.conftest import Logged
from tests.support import eventually, the_reactor
from tests.web.client import ask, connect
from tests.web.conftest import Served

BODY = b'{"cpu":1,"memory":1}'
HEAD = b"POST /schedule HTTP/1.1\r\nHost: x\r\n"
REQUEST = HEAD + b"Content-Length: 20\r\n\r\n" + BODY


@pytest_twisted.ensureDeferred
async def test_a_body_of_64_kib_is_read_and_a_longer_one_refused(served: Served) -> None:
    fits = BODY.ljust(served.site.bounds.body)
    assert (await ask("POST", served.url + "/schedule", raw=fits)).status == 200
    answer = await ask("POST", served.url + "/schedule", raw=fits + b" ")
    assert (answer.status, answer.body["code"]) == (413, "request_too_large")
    assert answer.body["error"] == "the body is longer than 64 KiB"


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_declared_too_long_is_refused_before_it_is_sent(served: Served) -> None:
    client = await connect(served.port)
    client.send(HEAD + b"Content-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n")
    await client.closed
    assert [status for status, _ in client.answers()] == [413]


@pytest_twisted.ensureDeferred
async def test_a_body_in_chunks_is_cut_off_where_it_gets_too_long(served: Served) -> None:
    client = await connect(served.port)
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 8 + b"0\r\n\r\n")
    await client.closed
    assert [status for status, _ in client.answers()] == [413]


@pytest_twisted.ensureDeferred
async def test_nothing_that_follows_a_refused_body_is_taken_for_a_request(served: Served, logged: Logged) -> None:
    client = await connect(served.port)
    client.send(HEAD + b"Content-Length: 70000\r\n\r\n" + b"x" * 70000 + REQUEST)
    await client.closed
    assert [status for status, _ in client.answers()] == [413]
    assert not [event for event in logged if event.get("path") == "/schedule"]


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /schedule HTTP/1.1\r\nHos", HEAD + b"Content-Length: 20\r\n\r\n" + BODY[:5]],
    ids=["nothing", "half a head", "half a body"],
)
@pytest_twisted.ensureDeferred
async def test_a_request_that_takes_too_long_to_send_is_told_so(served: Served, sent: bytes) -> None:
    served.site.bounds = replace(served.site.bounds, sending=0.2)
    client = await connect(served.port)
    client.send(sent or b"P")
    await client.closed
    ((status, body),) = client.answers()
    assert (status, body["code"]) == (408, "request_timeout")
    assert body["error"] == "the request took longer than 0.2 s to send"


@pytest_twisted.ensureDeferred
async def test_dripping_a_request_does_not_extend_its_time(served: Served) -> None:
    served.site.bounds = replace(served.site.bounds, sending=0.3)
    client = await connect(served.port)
    for byte in HEAD:
        if client.received:
            break
        client.send(bytes([byte]))
        await deferLater(the_reactor(), 0.05)
    await client.closed
    assert [status for status, _ in client.answers()] == [408]


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_http_gets_one_error_in_json(served: Served, garbage: bytes) -> None:
    client = await connect(served.port)
    client.send(garbage + REQUEST)
    await client.closed
    ((status, body),) = client.answers()
    assert (status, body["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + (b"X: " + b"x" * 1000 + b"\r\n") * 17 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 600 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"x" * 20_000,
    ],
    ids=["a path", "a line", "all lines", "too many lines", "a line without an end"],
)
@pytest_twisted.ensureDeferred
async def test_a_head_that_is_too_long_is_refused(served: Served, head: bytes) -> None:
    client = await connect(served.port)
    client.send(head)
    await client.closed
    ((status, body),) = client.answers()
    assert (status, body["code"]) == (431, "headers_too_large")
    assert body["error"] == "the request's head is longer than 16 KiB or 500 lines"


@pytest_twisted.ensureDeferred
async def test_a_refused_client_that_reads_nothing_and_closes_nothing_is_dropped(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "LINGER", 0.1)
    client = await connect(served.port)
    client.send(b"hello\r\n\r\n")
    client.send(b"x" * 1000)
    await eventually(lambda: not served.site.channels)
    await client.closed


@pytest_twisted.ensureDeferred
async def test_requests_on_one_connection_are_answered_in_their_order(served: Served) -> None:
    client = await connect(served.port)
    client.send(REQUEST + b"GET /healthz HTTP/1.1\r\n\r\n" + HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\n{")
    await client.closed
    assert [status for status, _ in client.answers()] == [200, 200, 400]


@pytest_twisted.ensureDeferred
async def test_when_it_stops_requests_in_flight_are_answered_and_idle_connections_closed(served: Served) -> None:
    await served.fleet.views()
    served.hosts[0].fault = Delay(seconds=0.3)
    idle, busy = await connect(served.port), await connect(served.port)
    idle.send(b"GET /healthz HTTP/1.1\r\n\r\n")
    await idle.until(b"ok")
    busy.send(REQUEST)
    await deferLater(the_reactor(), 0.1)
    await served.site.drain(5.0)
    await idle.closed
    await busy.closed
    ((status, body),) = busy.answers()
    assert status == 200
    assert body["host"]
    assert b"Connection: close" in busy.received


@pytest_twisted.ensureDeferred
async def test_a_request_that_comes_in_while_it_stops_is_answered(served: Served) -> None:
    await served.fleet.views()
    served.hosts[0].fault = Delay(seconds=0.2)
    client = await connect(served.port)
    client.send(HEAD + b"Content-Length: 20\r\n\r\n")
    await deferLater(the_reactor(), 0.05)
    stopping = Deferred.fromCoroutine(served.site.drain(5.0))
    client.send(BODY)
    await client.closed
    await stopping
    ((status, body),) = client.answers()
    assert status == 200
    assert body["host"]
    assert b"Connection: close" in client.received


@pytest.mark.parametrize("cut", [5, 30, len(HEAD)])
@pytest_twisted.ensureDeferred
async def test_a_request_that_is_half_sent_when_it_stops_may_come_in_and_is_answered(served: Served, cut: int) -> None:
    client = await connect(served.port)
    client.send(REQUEST[:cut])
    await eventually(lambda: bool(served.site.channels))
    await deferLater(the_reactor(), 0.05)
    stopping = Deferred.fromCoroutine(served.site.drain(5.0))
    client.send(REQUEST[cut:])
    await client.closed
    await stopping
    assert [status for status, _ in client.answers()] == [200]


@pytest_twisted.ensureDeferred
async def test_the_first_request_of_a_new_connection_is_answered_though_it_stops(served: Served) -> None:
    client = await connect(served.port)
    await eventually(lambda: bool(served.site.channels))
    stopping = Deferred.fromCoroutine(served.site.drain(5.0))
    client.send(REQUEST)
    await client.closed
    await stopping
    assert [status for status, _ in client.answers()] == [200]


@pytest_twisted.ensureDeferred
async def test_a_new_connection_that_says_nothing_does_not_hold_up_the_end(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "GRACE", 0.05)
    client = await connect(served.port)
    await eventually(lambda: bool(served.site.channels))
    await served.site.drain(30.0)
    await client.closed


@pytest_twisted.ensureDeferred
async def test_a_client_that_asks_and_asks_and_does_not_read_is_dropped(served: Served) -> None:
    client = await connect(served.port)
    await eventually(lambda: bool(served.site.channels))
    (connection,) = served.site.channels
    # With the system's own buffers it would take megabytes until nothing goes out any more.
    connection.tcp.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[attr-defined]
    transport: Any = client.transport
    transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    transport.pauseProducing()
    for _ in range(400):
        if not served.site.channels:
            break
        client.send(b"GET /healthz HTTP/1.1\r\n\r\n" * 50)
        await deferLater(the_reactor(), 0.01)
    assert not served.site.channels
    transport.resumeProducing()
    await client.closed


@pytest.mark.parametrize("line", [b"OPTIONS * HTTP/1.1", b"GET xhealthz HTTP/1.1"])
@pytest_twisted.ensureDeferred
async def test_a_path_begins_with_a_slash(served: Served, line: bytes) -> None:
    client = await connect(served.port)
    client.send(line + b"\r\nConnection: close\r\n\r\n")
    await client.closed
    assert [status for status, _ in client.answers()] == [400]


@pytest_twisted.ensureDeferred
async def test_a_body_in_chunks_needs_no_file(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    client = await connect(served.port)
    client.send(HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n14\r\n" + BODY + b"\r\n0\r\n\r\n")
    await client.closed
    assert [status for status, _ in client.answers()] == [200]


@pytest_twisted.ensureDeferred
async def test_a_whole_url_is_as_good_as_a_path(served: Served) -> None:
    client = await connect(served.port)
    client.send(b"GET http://elsewhere:1/healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
    await client.closed
    assert client.answers() == [(200, {"status": "ok"})]


@pytest_twisted.ensureDeferred
async def test_what_does_not_end_in_time_is_dropped(served: Served) -> None:
    await served.fleet.views()
    served.hosts[0].fault = Hang()
    client = await connect(served.port)
    client.send(REQUEST)
    await deferLater(the_reactor(), 0.1)
    await served.site.drain(0.1)
    await client.closed
    assert client.received == b""
    assert json.loads(BODY)
