"""The simulated event stream: in LXD's words, and with LXD's patience."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.error import ConnectionDone
from wsproto.events import CloseConnection, TextMessage

from lxdsched.sandbox import Database, KeyPair, SandboxServer, ServerState, Status
from tests.lxd.stream import listen, listening
from tests.sandbox.client import Client, pause
from tests.sandbox.streams import ALL, EVENTS, deaf, reactor, running, same

CAPTURED = Path(__file__).parents[1] / "data" / "lxd"

# What real servers said while the same was done to them; of one instance that was `e5` there it says `e1`.


def captured(flavour: str) -> list[dict[str, Any]]:
    path = CAPTURED / ("events.ndjson" if flavour == "lxd" else "incus/events.ndjson")
    text = path.read_text()
    for theirs, ours in (("e5", "e1"), ("e6", "e2"), ("e7", "e3")):
        text = text.replace(f'/{theirs}"', f'/{ours}"').replace(f'"{theirs}"', f'"{ours}"')
        text = text.replace(f"/{theirs}?", f"/{ours}?").replace(f"{theirs}b", f"{ours}b")
    return [json.loads(line) for line in text.splitlines()]


def shape(event: dict[str, Any]) -> str:
    """An event as it is written, but for when it was, who asked and which certificate it is about."""
    event["timestamp"] = ""
    metadata = event["metadata"]
    if "requestor" in metadata:
        metadata["requestor"] = dict.fromkeys(metadata["requestor"], "")
    path, _, fingerprint = metadata["source"].rpartition("/")
    if path.endswith("/certificates"):
        metadata["source"] = f"{path}/{len(fingerprint)}"
    return json.dumps(event)


async def do_what_was_done(client: Client, state: ServerState, pair: KeyPair, flavour: str) -> None:
    lxd = flavour == "lxd"
    one = "/1.0/instances/e1"
    none = {"source": {"type": "none"}}

    async def change(method: str, path: str, body: object = None) -> None:
        code, problem = await client.change(method, path, body)
        assert code in {200, 201}, problem

    async def act(path: str, *actions: str, force: bool = False) -> None:
        for action in actions:
            await change("PUT", f"{path}/state", {"action": action, "force": force})

    async def put(**changes: object) -> None:
        await change("PUT", one, await client.get(one) | changes)

    async def configure(key: str, value: str) -> None:
        await put(config=(await client.get(one))["config"] | {key: value})

    for name, project in (("e1", "default"), ("e2", "default"), ("e3", "team-a")):
        await change("POST", f"/1.0/instances?project={project}", none | {"name": name})
    await act(one, "start")
    await configure("limits.cpu", "1")
    if lxd:
        await configure("limits.memory", "1GiB")
    await act(one, "freeze", "unfreeze", "restart", "stop")
    if lxd:
        await act(one, "start")
        await act(one, "stop", force=True)
    await change("POST", "/1.0/profiles", {"name": "p1"})
    await put(profiles=["default", "p1"])
    await change("PUT", "/1.0/profiles/p1", {"config": {"limits.cpu": "2"}})
    await put(profiles=["default"])
    await change("DELETE", "/1.0/profiles/p1")
    await change("POST", one, {"name": "e1b"})
    if lxd:
        # That was e1 still when it was captured, and a guest that powers off is nobody's request.
        await act(f"{one}b", "start")
        state.set_status("e1b", Status.STOPPED)
    else:
        await change("DELETE", f"{one}b")
    await change("DELETE", "/1.0/instances/e2")
    if lxd:
        await change("PATCH", "/1.0", {"config": {"user.x": "1"}})
        der = b64encode(pair.certificate.public_bytes(Encoding.DER)).decode()
        await change("POST", "/1.0/certificates", {"type": "client", "certificate": der})
        await change("DELETE", f"/1.0/certificates/{pair.fingerprint[:12]}")


@pytest.mark.parametrize("flavour", ["lxd", "incus"])
@pytest_twisted.ensureDeferred
async def test_it_says_what_a_real_one_said(
    server_pair: KeyPair, client_pair: KeyPair, other_pair: KeyPair, flavour: str
) -> None:
    state = ServerState("vm", flavour=flavour)
    state.database.add_project("team-a", {"features.profiles": "false"})
    expected = [shape(event).replace('/e1"', '/e1b"') for event in captured(flavour)]
    async with running(state, server_pair, client_pair) as server:
        client = Client(server.url, client_pair)
        async with listening(server.url, reactor, client_pair) as stream:
            await do_what_was_done(client, state, other_pair, flavour)
            await stream.until(lambda: len(stream.messages) >= len(expected))
            assert [shape(event).replace('/e1"', '/e1b"') for event in stream.events] == expected
        await client.aclose()


@pytest_twisted.ensureDeferred
async def test_what_happens_behind_the_api_is_told_as_if_it_happened_by_itself(
    server: SandboxServer, state: ServerState, client_pair: KeyPair
) -> None:
    async with listening(server.url, reactor, client_pair) as stream:
        state.add_instance("a", status=Status.RUNNING)
        state.set_status("a", Status.FROZEN)
        state.set_status("a", Status.STOPPED)
        state.set_status("a", Status.ERROR)
        state.member_status = "Evacuated"
        state.database.remove_instance("default", "a")
        await same(stream, "instance-created", "instance-paused", "instance-shutdown", "instance-deleted")


@pytest_twisted.ensureDeferred
async def test_the_members_do_not_hear_one_that_they_cannot_reach(server_pair: KeyPair, client_pair: KeyPair) -> None:
    database = Database(clustered=True)
    one, two = ServerState("k1", database=database), ServerState("k2", database=database)
    async with (
        running(one, server_pair, client_pair) as first,
        running(two, server_pair, client_pair) as second,
        listening(first.url, reactor, client_pair) as at_one,
        listening(second.url, reactor, client_pair) as at_two,
    ):
        two.member_status = "Offline"
        one.add_instance("a")
        two.add_instance("b")
        assert [each.source for each in await at_one.all_heard(1)] == ["/1.0/instances/a"]
        assert [each.source for each in await at_two.all_heard(1)] == ["/1.0/instances/b"]
        two.member_status = "Online"
        one.add_instance("c")
        for stream in (at_one, at_two):
            assert [tuple(each) for each in await stream.all_heard(1)] == [
                ("instance-created", "/1.0/instances/c", "k1")
            ]


@pytest_twisted.ensureDeferred
async def test_it_hangs_up_on_who_has_not_answered_three_pings(
    state: ServerState, server_pair: KeyPair, client_pair: KeyPair
) -> None:
    async with running(state, server_pair, client_pair, ping=0.1) as server:
        async with (
            listening(server.url, reactor, client_pair) as answering,
            listening(server.url, reactor, client_pair, ponging=False) as mute,
        ):
            await mute.ended(3)
            assert (mute.pings, mute.farewell, mute.end) == ([b"keepalive"] * 3, None, ConnectionDone)
            await answering.until(lambda: len(answering.pings) > 5, 3)
            assert answering.end is None
            assert server.streams == 1
        await answering.until(lambda: server.streams == 0)


@pytest_twisted.ensureDeferred
async def test_it_gets_rid_of_who_reads_nothing(state: ServerState, server_pair: KeyPair, client_pair: KeyPair) -> None:
    async with running(state, server_pair, client_pair, ping=0.1) as server:
        stream = await listen(server.url, reactor, client_pair, ponging=False)
        deaf(stream)
        server.send_raw(b"x" * 30_000_000)
        await stream.until(lambda: server.streams == 0, 3)
        await stream.abort()


@pytest_twisted.ensureDeferred
async def test_it_does_not_wait_for_an_answer_when_it_hangs_up(server: SandboxServer, client_pair: KeyPair) -> None:
    stream = await listen(server.url, reactor, client_pair)
    stream.send(TextMessage("hello"))
    deaf(stream)
    await stream.until(lambda: server.streams == 0, 2)
    await stream.abort()


@pytest_twisted.ensureDeferred
async def test_streams_are_counted_while_they_last_and_are_no_requests_in_flight(
    server: SandboxServer, client: Client, state: ServerState, client_pair: KeyPair
) -> None:
    async with listening(server.url, reactor, client_pair), listening(server.url, reactor, client_pair) as other:
        assert server.streams == 2
        await client.get(ALL)
        assert server.requests.paths == {EVENTS: 2, "/1.0/instances": 1}
        assert (server.requests.in_flight, server.requests.max_in_flight) == (0, 1)
        await other.close()
        assert other.end is ConnectionDone
        assert server.streams == 1
    await other.until(lambda: server.streams == 0)
    state.add_instance("a")  # nobody hears it, and nothing breaks


@pytest_twisted.ensureDeferred
async def test_who_takes_leave_while_something_happens_does_no_harm(
    server: SandboxServer, state: ServerState, client_pair: KeyPair
) -> None:
    stream = await listen(server.url, reactor, client_pair)
    stream.send(CloseConnection(1000))
    for number in range(50):
        state.add_instance(f"a{number}")
        await pause(0.001)
    await stream.ended(2)
    await stream.until(lambda: server.streams == 0)


@pytest_twisted.ensureDeferred
async def test_frames_that_break_the_protocol_end_the_stream(server: SandboxServer, client_pair: KeyPair) -> None:
    for garbage in (b"\x81\x05hello", b"\xff" * 20, b"\x00" * 20):
        stream = await listen(server.url, reactor, client_pair)
        stream.transport.write(garbage)
        await stream.ended(2)
    assert server.streams == 0
