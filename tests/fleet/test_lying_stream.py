"""A host that lies on its stream: what it lists is what counts, and the other hosts do not notice."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel
from wsproto import events as frames

from lxdsched.fleet.events import Event, read_event
from lxdsched.fleet.hints import Hint, read_hint
from lxdsched.model import Capacity, InstanceType, Placement, Resources, State
from lxdsched.sandbox.certs import KeyPair
from tests.conftest import Logged
from tests.fleet.conftest import MakeServer, settings
from tests.fleet.lies import LARGE, SMALL, lies
from tests.fleet.streams import CREATED, Peer
from tests.support import BRISK, GIB, decided, demand, eventually, running_fleet, until

PATHS = ("metadata", "action", "source", "location", "project", "type", "context")


def told(**fields: object) -> str:
    """Return a message as LXD sends it, but for these fields of it and of its metadata."""
    message = json.loads(CREATED)
    for key, value in fields.items():
        (message["metadata"] if key in {"action", "source"} else message)[key] = value
    return json.dumps(message)


MESSAGES: Mapping[str, list[str | bytes]] = {
    "another host's url": [told(source="https://elsewhere:8443/1.0/instances/x")],
    "upwards": [told(source="/1.0/instances/../../../etc?project=..")],
    "quoted": [told(source="/1.0/instances/%2e%2e%2f%00%0a?project=%ff")],
    "orders to a terminal": [told(source="\x1b[2J\r\nERROR", action="instance-\x1b]0;x\x07", location="\x00")],
    "instances that are not there": [told(action="instance-deleted", source="/1.0/instances/load")] * 50,
    "unknown things": [
        told(action=word) for word in ("instance-", "instance-imploded", "x" * 100_000, "INSTANCE-CREATED")
    ],
    "other members": [told(location=name) for name in ("other", "node", "none", "", "honest")],
    "other projects": [told(project=name) for name in ("other", "*", "../..")],
    "its drain": [told(action="config-updated", source="/1.0")] * 20,
    "its cluster": [told(action="cluster-member-updated", source="/1.0/cluster/members/honest")] * 20,
    "small lies": [lie.body for path in PATHS for lie in lies(CREATED.encode(), path, {"": SMALL["2**70"]})],
    "large lies": [LARGE["deep lists"], LARGE["an endless list"][:900_000], LARGE["deep objects"][:900_000]],
    "half a character": ['{"metadata":{"action":"\\ud800"}}'],
}
FRAMES: Mapping[str, bytes] = {
    "a flood of events": b"\x81\x7e" + len(CREATED).to_bytes(2, "big") + CREATED.encode(),
    "a flood of pings": b"\x89\x00",
    "a flood of pongs": b"\x8a\x00",
    "a flood of nothing": b"\x01\x00" + b"\x00\x00" * 9,
    "a flood that is masked": b"\x81\x85abcd12345",
    "a flood of farewells": b"\x88\x02\x03\xe8",
    "a flood of no UTF-8": b"\x81\x02\xff\xfe",
    "a flood of odd codes": b"\x88\x02\x00\x00",
}
FLOOD = 100_000


@pytest.mark.parametrize("lie", [*MESSAGES, *FRAMES])
@pytest_twisted.ensureDeferred
async def test_whatever_a_stream_says_the_listing_is_what_counts(
    make_server: MakeServer, pair: KeyPair, logged: Logged, lie: str
) -> None:
    liar, honest = await make_server(), await make_server(name="honest")
    for server in (liar, honest):
        server.state.add_instance("load", {"limits.cpu": "3", "limits.memory": "3GiB"})
    async with running_fleet([settings(liar, pair), settings(honest, pair)], BRISK) as fleet:
        await until(fleet, State.LIVE)
        asked = honest.requests.total
        for message in MESSAGES.get(lie, []):
            liar.send_raw(message.decode("utf-8", "replace") if isinstance(message, bytes) else message)
        if lie in FRAMES:
            liar.write_raw(FRAMES[lie] * FLOOD)
        liar.state.add_instance("new", {"limits.cpu": "1", "limits.memory": "1GiB"})
        assert isinstance(await decided(fleet, demand(targets=frozenset({honest.url}))), Placement)
        await eventually(lambda: fleet.snapshot()[0].allocation.resources == Resources(4000, 4 * GIB))
        assert fleet.snapshot()[1].allocation.resources == Resources(3000, 3 * GIB)
        placed = await decided(fleet, demand())
        assert isinstance(placed, Placement)
        assert placed.view.host == honest.url
        assert honest.requests.total == asked
        assert len(fleet.snapshot()[0].reason or "") <= 1000
        liar.cut_streams()
        await until(fleet, State.LIVE)
    assert sum(map(len, logged.messages(LogLevel.warn))) < 8000


CLUSTERED = Capacity(
    "node", Resources(1, 1), Resources(1, 1), frozenset({0}), frozenset(), frozenset(InstanceType), clustered=True
)


def test_every_lie_in_an_event_is_read_as_texts_or_not_at_all() -> None:
    count = 0
    for path in PATHS:
        for values in (SMALL, LARGE):
            for lie in lies(CREATED.encode(), path, values):
                event = read_event(lie.body)
                assert {type(each) for each in (event.action, event.source, event.location)} == {str}, str(lie)
                assert read_hint(event, CLUSTERED) in Hint
                count += 1
    assert count > 500


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_what_is_said_of_another_member_hides_nothing_that_concerns_what_is_listed(
    action: str, source: str, location: str
) -> None:
    hint = read_hint(Event(f"instance-created{action}", source, location), CLUSTERED)
    assert hint is Hint.INSTANCES
    assert read_hint(Event(f"config-{action}", source, location), CLUSTERED) is Hint.STANDING


any_frame = st.tuples(
    st.booleans(), st.integers(0, 7), st.integers(0, 15), st.booleans(), st.integers(0, 2), st.binary(max_size=140)
)


def pack(fin: bool, reserved: int, kind: int, masked: bool, form: int, payload: bytes) -> bytes:
    """Pack a frame, its length in one of the three forms, whether it is the shortest that there is or not."""
    first = bytes([fin << 7 | reserved << 4 | kind])
    size = len(payload)
    lengths = {0: bytes([min(size, 125)]), 1: b"\x7e" + size.to_bytes(2, "big"), 2: b"\x7f" + size.to_bytes(8, "big")}
    length = bytearray(lengths[form])
    length[0] |= masked << 7
    return first + bytes(length) + (b"mask" if masked else b"") + payload


@given(st.lists(any_frame, max_size=12), st.integers(1, 50))
def test_no_frames_break_anything_however_they_are_cut(
    said: list[tuple[bool, int, int, bool, int, bytes]], step: int
) -> None:
    host = Peer()
    host.say(frames.AcceptConnection(), frames.Ping())
    data = b"".join(pack(*frame) for frame in said)
    for at in range(0, len(data), step):
        host.raw(data[at : at + step])
    host.hang_up()
    assert host.dropped
    (reason,) = (each for each in host.told if isinstance(each, str))
    assert len(reason) < 400
