"""Faults of the event streams, and levers on them: what tests do to whoever listens."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionLost
from wsproto.events import CloseConnection, Ping

from lxdsched.sandbox import KeyPair, SandboxServer, ServerState
from lxdsched.sandbox.faults import Blackhole, Delay, Garbage, Hang, Lag, Refuse, Reset, Silence, Status
from tests.lxd.stream import RejectedError, listen, listening
from tests.sandbox.client import Client, pause, within
from tests.sandbox.streams import ALL, EVENTS, reactor, running, same


@pytest_twisted.ensureDeferred
async def test_all_streams_can_be_cut_and_others_begin(
    server: SandboxServer, client: Client, client_pair: KeyPair
) -> None:
    await client.get("/1.0")
    async with listening(server.url, reactor, client_pair) as one, listening(server.url, reactor, client_pair) as two:
        server.cut_streams()
        for stream in (one, two):
            await stream.ended(2)
            assert (stream.farewell, stream.end) == (None, ConnectionLost)
        assert server.streams == 0
        await client.get("/1.0")
        assert server.requests.connections == 3
    async with listening(server.url, reactor, client_pair):
        assert server.streams == 1


@pytest_twisted.ensureDeferred
async def test_anything_can_be_sent_over_all_streams(server: SandboxServer, client_pair: KeyPair) -> None:
    async with (
        listening(server.url, reactor, client_pair) as one,
        listening(server.url, reactor, client_pair, f"{EVENTS}?type=operation&project=default") as two,
    ):
        for message in ("", "no JSON", "é" * 1_000_000, *map(str, range(3000))):
            server.send_raw(message)
        server.send_raw(b"\x00\xff")
        for stream in (one, two):
            await stream.until(partial(bool, stream.binary))
            assert stream.messages == ["", "no JSON", "é" * 1_000_000, *map(str, range(3000))]
            assert stream.binary == [b"\x00\xff"]
        server.write_raw(b"\x81\x02hi\x88\x02\x03\xe9")
        for stream in (one, two):
            await stream.ended(2)
            assert (stream.messages[-1], stream.farewell) == ("hi", 1001)


@pytest.mark.parametrize("fault", [Silence(), Silence(path="/"), Blackhole()])
@pytest_twisted.ensureDeferred
async def test_in_silence_nothing_comes_and_what_happens_then_is_never_told(
    state: ServerState, server_pair: KeyPair, client_pair: KeyPair, fault: Any
) -> None:
    async with (
        running(state, server_pair, client_pair, ping=0.1) as server,
        listening(server.url, reactor, client_pair) as stream,
    ):
        await stream.until(lambda: stream.pings)
        server.fault = fault
        pings = len(stream.pings)
        stream.send(Ping(b"hello?"))
        state.add_instance("a")
        server.send_raw("lies")
        await pause(0.5)
        assert (stream.messages, stream.pongs, stream.end) == ([], [], None)
        assert len(stream.pings) == pings
        assert server.streams == 1
        server.fault = None
        state.add_instance("b")
        assert [each.source for each in await stream.all_heard(1)] == ["/1.0/instances/b"]
        await stream.until(lambda: len(stream.pings) > pings)


@pytest_twisted.ensureDeferred
async def test_silence_elsewhere_is_none_here(server: SandboxServer, state: ServerState, client_pair: KeyPair) -> None:
    async with listening(server.url, reactor, client_pair) as stream:
        for fault in (Silence(path="/1.0/instances"), Blackhole(path="/1.0/instances")):
            server.fault = fault
            state.add_instance("a")
            await same(stream, "instance-created")


@pytest_twisted.ensureDeferred
async def test_in_silence_streams_begin_and_everything_else_works(
    server: SandboxServer, client: Client, client_pair: KeyPair
) -> None:
    server.fault = Silence()
    stream = await listen(server.url, reactor, client_pair)
    body = {"name": "a", "source": {"type": "none"}}
    assert await client.change("POST", "/1.0/instances", body) == (200, "")
    assert len(await client.get(ALL)) == 1
    stream.send(CloseConnection(1000))
    await pause(0.2)
    assert (stream.pings, stream.messages, stream.farewell, stream.end) == ([], [], None, None)
    server.fault = None
    # It finds out that the other side has gone when it has something to say.
    assert await client.change("DELETE", "/1.0/instances/a") == (200, "")
    await stream.ended(2)


@pytest_twisted.ensureDeferred
async def test_a_stream_can_be_deaf_until_its_first_ping(
    server: SandboxServer, state: ServerState, client_pair: KeyPair
) -> None:
    server.fault = Lag(seconds=0.2)
    stream = await listen(server.url, reactor, client_pair)
    state.add_instance("a")
    await pause(0.05)
    assert (stream.pings, stream.messages, server.streams) == ([], [], 1)
    await stream.until(lambda: stream.pings, 2)
    state.add_instance("b")
    assert [each.source for each in await stream.all_heard(1)] == ["/1.0/instances/b"]
    await stream.close()
    gone = await listen(server.url, reactor, client_pair)
    await gone.abort()
    await gone.until(lambda: server.streams == 0, 2)


@pytest_twisted.ensureDeferred
async def test_a_handshake_can_stay_unanswered_while_open_streams_go_on(
    server: SandboxServer, client: Client, state: ServerState, client_pair: KeyPair
) -> None:
    async with listening(server.url, reactor, client_pair) as stream:
        server.fault = Hang(path=EVENTS)
        with pytest.raises(TimeoutError):
            await within(0.2, listen(server.url, reactor, client_pair))
        assert await client.get(ALL) == []
        state.add_instance("a")
        await same(stream, "instance-created")


@pytest.mark.parametrize("code", [404, 500])
@pytest_twisted.ensureDeferred
async def test_a_handshake_can_be_refused(server: SandboxServer, client_pair: KeyPair, code: int) -> None:
    server.fault = Status(code=code, message="not found", path=EVENTS)
    with pytest.raises(RejectedError) as refusal:
        await listen(server.url, reactor, client_pair)
    assert refusal.value.status == code
    assert json.loads(refusal.value.body)["error"] == "not found"
    server.fault = Garbage(kind="html", path=EVENTS)
    with pytest.raises(RejectedError) as refusal:
        await listen(server.url, reactor, client_pair)
    assert refusal.value.status == 200


@pytest_twisted.ensureDeferred
async def test_a_handshake_can_be_late_or_be_reset(server: SandboxServer, client_pair: KeyPair) -> None:
    server.fault = Delay(seconds=0.2, path=EVENTS)
    with pytest.raises(TimeoutError):
        await within(0.05, listen(server.url, reactor, client_pair))
    async with listening(server.url, reactor, client_pair) as stream:
        await stream.until(lambda: stream.pings)
    server.fault = Reset(after="request")
    with pytest.raises(ConnectionLost):
        await listen(server.url, reactor, client_pair)


@pytest.mark.parametrize("fault", [None, Refuse(), Silence(), Blackhole()])
@pytest_twisted.ensureDeferred
async def test_streams_end_with_their_server(server: SandboxServer, client_pair: KeyPair, fault: Any) -> None:
    async with listening(server.url, reactor, client_pair) as stream:
        server.fault = fault
        await server.settled()
        await server.stop()
        assert server.streams == 0
        await stream.ended(2)
        assert (stream.farewell, stream.end) == (None, ConnectionLost)
