"""How much clients may take of us: connections, requests at the same time, and turns."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from lxdsched.logs import as_text
from lxdsched.sandbox.faults import Delay
from tests.conftest import Logged
from tests.support import eventually, the_reactor
from tests.web.client import Raw, ask, connect
from tests.web.conftest import Served

HEALTH = b"GET /healthz HTTP/1.1\r\n\r\n"
ASK = b'POST /schedule HTTP/1.1\r\nContent-Length: 20\r\n\r\n{"cpu":1,"memory":1}'


def narrow(served: Served, **bounds: Any) -> None:
    """Let clients have less."""
    served.site.bounds = replace(served.site.bounds, **bounds)
    served.site.crowd._bounds = served.site.bounds


@pytest_twisted.ensureDeferred
async def test_a_new_connection_that_says_nothing_is_closed_without_an_answer(served: Served) -> None:
    narrow(served, sending=0.2)
    client = await connect(served.port)
    await client.closed
    assert client.received == b""
    assert served.site.crowd.connections == 0


@pytest_twisted.ensureDeferred
async def test_a_connection_that_waits_for_its_next_request_for_too_long_is_closed(served: Served) -> None:
    served.site.timeOut = 0.2
    client = await connect(served.port)
    client.send(HEALTH)
    await client.closed
    assert [status for status, _ in client.answers()] == [200]


@pytest_twisted.ensureDeferred
async def test_the_connection_that_waits_longest_makes_room_for_a_new_one(served: Served, logged: Logged) -> None:
    narrow(served, connections=2)
    first, second = await connect(served.port), await connect(served.port)
    await eventually(lambda: served.site.crowd.connections == 2)
    second.send(HEALTH)
    await second.until(b"ok")
    third = await connect(served.port)
    third.send(HEALTH)
    await first.closed
    await third.until(b"ok")
    assert not second.closed.called
    warned = [event for event in logged if "connections are being dropped" in str(event.get("log_format"))]
    assert [(event["client"], event["over_connections"]) for event in warned] == [("127.0.0.1", 1)]
    await second.close()
    await third.close()


@pytest_twisted.ensureDeferred
async def test_a_connection_that_finds_no_room_is_closed(served: Served) -> None:
    await served.fleet.views()
    narrow(served, connections=1)
    served.hosts[0].fault = Delay(seconds=0.3)
    busy = await connect(served.port)
    busy.send(ASK)
    await eventually(lambda: served.site.in_flight == 1)
    late = await connect(served.port)
    await late.closed
    assert late.received == b""
    await busy.until(b"host")
    await busy.close()


@pytest_twisted.ensureDeferred
async def test_more_requests_than_may_be_answered_at_the_same_time_are_told_so(served: Served) -> None:
    await served.fleet.views()
    narrow(served, requests=1)
    served.hosts[0].fault = Delay(seconds=0.3)
    busy = await connect(served.port)
    busy.send(ASK)
    await eventually(lambda: served.site.in_flight == 1)
    answer = await ask("GET", served.url + "/reservations")
    assert (answer.status, answer.body["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
    assert (await ask("GET", served.url + "/healthz")).status == 200
    await busy.until(b"host")
    await busy.close()
    assert (await ask("GET", served.url + "/reservations")).status == 200
    assert served.site.in_flight == 0


@pytest_twisted.ensureDeferred
async def test_a_request_whose_client_has_gone_is_in_flight_no_more(served: Served) -> None:
    await served.fleet.views()
    served.hosts[0].fault = Delay(seconds=0.3)
    busy = await connect(served.port)
    busy.send(ASK)
    await eventually(lambda: served.site.in_flight == 1)
    await busy.close()
    await eventually(lambda: served.site.in_flight == 0)


@pytest_twisted.ensureDeferred
async def test_a_client_that_asks_too_often_gets_all_answers_but_has_to_wait(served: Served) -> None:
    narrow(served, rate_per_peer=20)
    began = the_reactor().seconds()
    client = await connect(served.port)
    client.send(HEALTH * 29 + HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await client.closed
    assert [status for status, _ in client.answers()] == [200] * 30
    # A second's worth comes at once, the others one after the other.
    assert the_reactor().seconds() - began > 10 / 20


@pytest_twisted.ensureDeferred
async def test_a_new_connection_of_a_client_that_asked_too_often_is_not_read_before_its_time(served: Served) -> None:
    narrow(served, rate_per_peer=10)
    greedy = await connect(served.port)
    greedy.send(HEALTH * 12)
    await eventually(lambda: greedy.received.count(b"ok") >= 10)
    began = the_reactor().seconds()
    other = await connect(served.port)
    other.send(HEALTH)
    await other.until(b"ok")
    assert the_reactor().seconds() - began > 0.05
    await greedy.close()
    await other.close()


@pytest_twisted.ensureDeferred
async def test_one_that_has_to_wait_does_not_hold_up_the_end(served: Served) -> None:
    narrow(served, rate_per_peer=1)
    client = await connect(served.port)
    client.send(HEALTH * 60)
    await client.until(b"ok")
    await served.site.drain(30.0)
    await client.closed
    assert not served.site.channels


@pytest_twisted.ensureDeferred
async def test_one_that_has_to_wait_may_go(served: Served) -> None:
    narrow(served, rate_per_peer=1)
    client = await connect(served.port)
    client.send(HEALTH * 60)
    await client.until(b"ok")
    await client.close()
    await eventually(lambda: not served.site.channels)


def _small_buffers(served: Served, client: Raw) -> None:
    """Have nothing fit into the system's own buffers."""
    (connection,) = served.site.channels
    connection.tcp.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[attr-defined]
    transport: Any = client.transport
    transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    transport.pauseProducing()


@pytest.mark.parametrize(
    "request_bytes",
    [HEALTH, HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")],
    ids=["kept", "last"],
)
@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_take_its_answer_is_dropped(served: Served, request_bytes: bytes) -> None:
    client = await connect(served.port)
    await eventually(lambda: bool(served.site.channels))
    narrow(served, sending=0.3)
    _small_buffers(served, client)
    (connection,) = served.site.channels
    connection.tcp.write(b"a long answer " * 100_000)
    client.send(request_bytes)
    await eventually(lambda: not served.site.channels)
    transport: Any = client.transport
    transport.resumeProducing()
    await client.closed


@pytest_twisted.ensureDeferred
async def test_every_answer_has_the_name_of_its_request(served: Served, logged: Logged) -> None:
    client = await connect(served.port)
    client.send(b"GET /nowhere HTTP/1.1\r\nX-Request-Id: job-17:a/b\r\n\r\n")
    await client.until(b"not_found")
    assert b"X-Request-Id: job-17:a/b\r\n" in client.received
    assert [event["request_id"] for event in logged if event.get("path") == "/nowhere"] == ["job-17:a/b"]
    await client.close()
    names = {(await ask("GET", served.url + "/healthz")).headers["x-request-id"] for _ in range(2)}
    assert len(names) == 2


@pytest.mark.parametrize("given", [b"", b"x" * 129, b'"quoted"', b"a b", b"\xff\xfe", b"a\x7f", b"a\xc2\x9b", b"$(x)"])
@pytest_twisted.ensureDeferred
async def test_a_name_that_does_not_belong_into_a_log_is_not_taken(served: Served, given: bytes) -> None:
    client = await connect(served.port)
    client.send(b"GET /healthz HTTP/1.1\r\nConnection: close\r\nX-Request-Id: " + given + b"\r\n\r\n")
    await client.closed
    ((status, _),) = client.answers()
    (name,) = [line for line in client.received.split(b"\r\n") if line.startswith(b"X-Request-Id: ")]
    assert status == 200
    assert len(name.removeprefix(b"X-Request-Id: ")) == 16


@pytest_twisted.ensureDeferred
async def test_what_is_refused_before_it_has_come_in_has_a_name_too(served: Served, logged: Logged) -> None:
    client = await connect(served.port)
    client.send(b"hello\r\n\r\n")
    await client.closed
    (event,) = [event for event in logged if event.get("code") == "invalid_request"]
    assert b"X-Request-Id: " + str(event["request_id"]).encode() in client.received
    assert as_text(event).endswith(f" INFO  refused a request for 127.0.0.1: {event['reason']}")
    await deferLater(the_reactor(), 0)


@pytest_twisted.ensureDeferred
async def test_a_line_about_tls_that_failed_says_with_whom(served: Served, logged: Logged) -> None:
    client = await connect(served.port)
    await eventually(lambda: bool(served.site.channels))
    (channel,) = served.site.channels
    served.site.lost(channel, Failure(SSL.Error([("", "", "no good")])))
    (event,) = [event for event in logged if event.get("log_format") == "TLS with a client failed"]
    assert event["client"] == "127.0.0.1"
    assert as_text(event).endswith(" TLS with a client failed for 127.0.0.1: no good")
    await client.close()


@pytest.mark.parametrize(
    "path", [b"//hosts", b"/hosts/", b"/hosts/%0d%0aX:y", b"/\x9b31m", b"/%C2%9B31m", b"/hosts?\x7f", b"http://\x9b/a"]
)
@pytest_twisted.ensureDeferred
async def test_nothing_of_a_request_gets_into_the_headers_of_its_answer(served: Served, path: bytes) -> None:
    client = await connect(served.port)
    client.send(b"GET " + path + b" HTTP/1.1\r\nHost: \x9bodd\r\nOrigin: odd\r\nConnection: close\r\n\r\n")
    await client.closed
    head = client.received.partition(b"\r\n\r\n")[0].decode("ascii")
    assert all(line.isprintable() for line in head.split("\r\n"))
    assert not any(part in head for part in ("odd", "31m", "X:", "Location"))


@pytest.mark.parametrize(
    ("length", "answer"), [(1000, b"200 OK"), (1025, b"400 Bad Request"), (20_000, b"400 Bad Request")]
)
@pytest_twisted.ensureDeferred
async def test_a_body_may_come_in_many_pieces_but_not_in_any_number(served: Served, length: int, answer: bytes) -> None:
    body = b'{"cpu":1,"memory":1}'.ljust(length)
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    client = await connect(served.port)
    client.send(b"POST /schedule HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
    await client.until(b"}\n")
    assert client.received.startswith(b"HTTP/1.1 " + answer)
    assert (b"more than 1024 pieces" in client.received) == (length > 1024)
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_read_in_turns_may_go(served: Served) -> None:
    client = await connect(served.port)
    client.send(b"POST /schedule HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000)
    await eventually(lambda: bool(served.site.channels))
    await client.close()
    await eventually(lambda: not served.site.channels and served.site.crowd.connections == 0)
