"""Faults strike at once, on open connections too, and are gone when they are taken away."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.web.client import PartialDownloadError, ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss

from lxdsched.sandbox import KeyPair, SandboxServer, ServerState
from lxdsched.sandbox.faults import (
    Blackhole,
    CloseMidBody,
    Delay,
    Drip,
    Fault,
    Flood,
    Garbage,
    Hang,
    Refuse,
    Reset,
    Status,
)
from tests.sandbox.client import Client, arrive, pause, within

ALL = "/1.0/instances?recursion=1&all-projects=true"


@pytest_twisted.ensureDeferred
async def test_refuse_closes_the_port_and_the_same_port_opens_again(
    server: SandboxServer, client: Client, client_pair: KeyPair
) -> None:
    await client.get("/1.0")
    server.fault = Refuse()
    await server.settled()
    fresh = Client(server.url, client_pair)
    with pytest.raises(Refused):
        await fresh.get("/1.0")
    with pytest.raises(Refused):
        await client.get("/1.0")
    server.fault = None
    await server.settled()
    assert await client.get("/") == ["/1.0"]


@pytest_twisted.ensureDeferred
async def test_a_server_can_be_started_while_it_refuses(state: ServerState, server_pair: KeyPair, server: Any) -> None:
    server.fault = Refuse()
    await server.stop()
    await server.start()
    client = Client(server.url)
    with pytest.raises(Refused):
        await client.get("/")
    server.fault = None
    await server.settled()
    assert await client.get("/") == ["/1.0"]
    await client.aclose()


@pytest_twisted.ensureDeferred
async def test_a_blackhole_lets_tcp_in_and_nothing_out(
    server: SandboxServer, client: Client, client_pair: KeyPair
) -> None:
    await client.get("/1.0")
    server.fault = Blackhole()
    fresh = Client(server.url, client_pair)
    for each in (fresh, client):
        with pytest.raises(TimeoutError):
            await within(0.2, each.get("/1.0"))
    assert server.requests.connections == 2
    server.fault = None
    assert (await client.get("/1.0"))["auth"] == "trusted"


@pytest.mark.parametrize("after", ["accept", "request"])
@pytest_twisted.ensureDeferred
async def test_reset_breaks_connections_off(server: SandboxServer, client_pair: KeyPair, after: Any) -> None:
    server.fault = Reset(after=after)
    client = Client(server.url, client_pair)
    with pytest.raises(ResponseNeverReceived) as caught:
        await client.get("/1.0")
    assert caught.value.reasons[0].check(ConnectionLost)
    assert server.requests.total == (0 if after == "accept" else 1)
    server.fault = None
    await client.get("/1.0")
    await client.aclose()


@pytest_twisted.ensureDeferred
async def test_a_hang_can_be_confined_to_a_path(server: SandboxServer, client: Client) -> None:
    server.fault = Hang(path="/1.0/instances")
    with pytest.raises(TimeoutError):
        await within(0.1, client.get(ALL))
    assert (await client.get("/1.0"))["auth"] == "trusted"
    assert server.requests.paths == {"/1.0/instances": 1, "/1.0": 1}


@pytest_twisted.ensureDeferred
async def test_a_delayed_answer_is_the_right_one(server: SandboxServer, client: Client) -> None:
    server.fault = Delay(seconds=0.1)
    with pytest.raises(TimeoutError):
        await within(0.05, client.get(ALL))
    assert await within(2, client.get(ALL)) == []


@pytest_twisted.ensureDeferred
async def test_a_server_with_requests_in_waiting_can_be_stopped(server: SandboxServer, client: Client) -> None:
    for fault in (Delay(seconds=60), Drip(seconds=60), Hang()):
        server.fault = fault
        with pytest.raises(TimeoutError):
            await within(0.05, client.raw(ALL))
    await server.stop()
    await pause(0.02)  # the client notices in its own time
    # What is left open is seen by the fixture that looks for it.


@pytest.mark.parametrize(("code", "message"), [(500, "sql: database is closed"), (503, "no available dqlite leader")])
@pytest_twisted.ensureDeferred
async def test_an_error_comes_in_lxds_envelope(server: SandboxServer, client: Client, code: int, message: str) -> None:
    server.fault = Status(code=code, message=message)
    status, envelope = await client.ask("GET", ALL)
    assert (status, envelope["type"]) == (code, "error")
    assert (envelope["error_code"], envelope["error"]) == (code, message)


@pytest.mark.parametrize("kind", ["not-json", "truncated", "html", "empty", "binary"])
@pytest_twisted.ensureDeferred
async def test_garbage_is_a_good_answer_that_is_no_json(server: SandboxServer, client: Client, kind: Any) -> None:
    server.fault = Garbage(kind=kind)
    response = await client.response("GET", ALL)
    assert response.code == 200
    with pytest.raises(ValueError, match=r"."):
        json.loads(await response.content())


@pytest_twisted.ensureDeferred
async def test_garbage_can_be_json_of_the_wrong_types_or_anything_given(server: SandboxServer, client: Client) -> None:
    server.fault = Garbage(kind="wrong-types")
    assert (await client.ask("GET", ALL))[1]["metadata"] == "sixteen"
    server.fault = Garbage(body=b"[1]")
    assert (await client.ask("GET", ALL))[1] == [1]


@pytest_twisted.ensureDeferred
async def test_garbage_need_not_even_be_http(server: SandboxServer, client: Client) -> None:
    server.fault = Garbage(kind="not-http")
    with pytest.raises(ResponseFailed):
        await client.get(ALL)
    await pause(0.02)  # the client hangs up in its own time


@pytest_twisted.ensureDeferred
async def test_a_body_can_end_before_its_time(server: SandboxServer, client: Client) -> None:
    server.fault = CloseMidBody()
    response = await client.response("GET", ALL)
    assert response.code == 200
    with pytest.raises((ResponseFailed, PartialDownloadError)):
        await response.content()


@pytest_twisted.ensureDeferred
async def test_a_dripping_body_begins_at_once_and_comes_whole_in_the_end(server: SandboxServer, client: Client) -> None:
    server.fault = Drip(seconds=0.005, size=20)
    response = await within(1, client.response("GET", ALL))
    assert await within(5, _json(response)) == (await _plain(server, client))
    server.fault = Drip(seconds=0.05)
    arrival = arrive(await within(1, client.response("GET", ALL)))
    await pause(0.3)
    assert 1 <= arrival.size <= 7
    arrival.abort()
    await arrival.ended


async def _json(response: Any) -> Any:
    return await response.json()


async def _plain(server: SandboxServer, client: Client) -> Any:
    fault, server.fault = server.fault, None
    answer = (await client.ask("GET", ALL))[1]
    server.fault = fault
    return answer


@pytest.mark.parametrize(
    ("framing", "end"), [("length", ResponseDone), ("chunked", ResponseDone), ("close", PotentialDataLoss)]
)
@pytest_twisted.ensureDeferred
async def test_a_flood_of_a_given_size_ends(server: SandboxServer, client: Client, framing: Any, end: type) -> None:
    server.fault = Flood(size=3_000_000, framing=framing)
    arrival = arrive(await client.response("GET", ALL))
    assert await arrival.ended is end
    assert arrival.size == 3_000_000
    assert arrival.data.startswith(b'{"type":"sync","status":"Success"')


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest_twisted.ensureDeferred
async def test_an_endless_flood_ends_with_its_reader(server: SandboxServer, client: Client, framing: Any) -> None:
    server.fault = Flood(framing=framing)
    arrival = arrive(await client.response("GET", ALL))
    while arrival.size < 5_000_000:
        await pause(0.01)
    arrival.abort()
    assert await arrival.ended in {ResponseFailed, PotentialDataLoss}
    while server.requests.in_flight:
        await pause(0.01)


@pytest_twisted.ensureDeferred
async def test_a_flood_waits_for_its_reader(server: SandboxServer, client: Client) -> None:
    server.fault = Flood()
    arrival = arrive(await client.response("GET", ALL))
    transport: Any = arrival.transport
    transport.pauseProducing()
    await pause(0.2)
    size = arrival.size
    # The server's loop is free meanwhile: it would not answer here, were it filling its memory.
    server.fault = None
    assert (await within(2, client.get("/1.0")))["auth"] == "trusted"
    assert arrival.size == size
    arrival.abort()
    await arrival.ended


@pytest_twisted.ensureDeferred
async def test_requests_are_counted_by_path_and_by_how_many_at_a_time(server: SandboxServer, client: Client) -> None:
    server.fault = Hang()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await within(0.05, client.get(ALL))
    server.fault = None
    await client.get(ALL)
    assert server.requests.paths["/1.0/instances"] == 3
    assert server.requests.max_in_flight >= 1
    server.requests.reset()
    assert server.requests.total == 0


def test_a_fault_is_a_value() -> None:
    assert Hang(path="/1.0") == Hang(path="/1.0")
    assert isinstance(Flood(), Fault)
