"""Connections that wait to be taken: as many as there is time for, and none whose client has left."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import thread_time
from typing import Any
from unittest.mock import Mock

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.tcp import Port
from twisted.internet.unix import Port as UnixPort
from twisted.python.failure import Failure

from lxdsched.listener import backlog
from lxdsched.listener.backlog import BACKLOG, LAST, SLICE, take_all
from lxdsched.listener.crowd import Crowd
from lxdsched.listener.ports import Door
from lxdsched.listener.settings import Bounds
from lxdsched.listener.turns import Turns
from tests.support import the_reactor

RESETS = struct.pack("ii", 1, 0)


class Guests(Factory):
    """Knows whom it was given."""

    noisy = False

    def __init__(self) -> None:
        self.came: list[Any] = []

    def buildProtocol(self, addr: object) -> Protocol:  # noqa: N802
        """Take note."""
        protocol = Protocol()
        self.came.append(protocol)
        return protocol


class Scene:
    """A port, and those who connect to it."""

    def __init__(self, stack: ExitStack, path: Path | None = None) -> None:
        self.stack = stack
        self.guests = Guests()
        self.path = path
        if path is None:
            self.port: Any = Port(0, self.guests, 100, "127.0.0.1", Mock())
        else:
            self.port = UnixPort(bytes(path), self.guests, reactor=Mock())
        self.port.startListening()
        take_all(self.port)
        stack.callback(self.port.socket.close)

    def connect(self) -> socket.socket:
        """Connect."""
        family, address = (
            (socket.AF_INET, self.port.socket.getsockname()) if self.path is None else (socket.AF_UNIX, str(self.path))
        )
        client = self.stack.enter_context(socket.socket(family))
        client.settimeout(10)
        client.connect(address)
        return client

    def turn(self) -> int:
        """Let the port do its part of a turn; return how many it has taken."""
        before = len(self.guests.came)
        self.port.doRead()
        for protocol in self.guests.came[before:]:
            self.stack.callback(protocol.transport.socket.close)
        return len(self.guests.came) - before


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


@pytest.fixture(params=["tcp", "unix"])
def scene(request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path) -> Scene:
    return Scene(stack, None if request.param == "tcp" else tmp_path / "socket")


@pytest.fixture(autouse=True)
def pace(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock of our work that goes on by what is in the list, each time it is looked at."""
    now, step = 0.0, [0.0]

    def thread_time() -> float:
        nonlocal now
        now += step[0]
        return now

    monkeypatch.setattr(backlog, "thread_time", thread_time)
    return step


def test_all_who_have_come_are_taken_however_few_came_before(scene: Scene) -> None:
    scene.connect()
    assert scene.turn() == 1
    for _ in range(40):
        scene.connect()
    assert scene.turn() == 40
    assert scene.turn() == 0


def test_nothing_is_made_for_those_who_have_left(scene: Scene) -> None:
    for _ in range(20):
        scene.connect().close()
    scene.connect()
    for _ in range(20):
        scene.connect().close()
    assert scene.turn() == 1
    assert scene.turn() == 0


def test_nothing_is_made_for_those_who_have_reset_their_connection(stack: ExitStack) -> None:
    scene = Scene(stack)
    client = scene.connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
    client.close()
    scene.connect()
    assert scene.turn() == 1


def test_who_has_asked_and_will_not_say_more_is_taken(scene: Scene) -> None:
    client = scene.connect()
    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    client.shutdown(socket.SHUT_WR)
    assert scene.turn() == 1
    assert scene.guests.came[0].transport.socket.recv(100) == b"GET / HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize("left", [False, True])
def test_a_turn_takes_no_more_than_there_is_time_for(scene: Scene, pace: list[float], left: bool) -> None:
    pace[0] = SLICE * 0.3
    for _ in range(10):
        client = scene.connect()
        if left:
            client.close()
    last = scene.connect()
    last.sendall(b"x")
    taken = [scene.turn() for _ in range(5)]
    # Four fit into a turn of this clock.
    assert taken == ([0, 0, 1, 0, 0] if left else [4, 4, 3, 0, 0])


def test_each_turn_takes_at_least_one(scene: Scene, pace: list[float]) -> None:
    pace[0] = SLICE * 100
    for _ in range(3):
        scene.connect()
    assert [scene.turn() for _ in range(4)] == [1, 1, 1, 0]


@pytest.mark.parametrize(("step", "taken"), [(SLICE * 0.9, 20), (LAST * 0.3, 4)])
def test_who_waits_when_a_port_closes_is_taken_as_far_as_there_is_time(
    scene: Scene, pace: list[float], step: float, taken: int
) -> None:
    pace[0] = step
    for _ in range(20):
        scene.connect()
    scene.port.disconnecting = True
    scene.port.connectionLost(Failure(ConnectionDone()))
    assert len(scene.guests.came) == taken
    assert scene.port.fileno() == -1
    for protocol in scene.guests.came:
        scene.stack.callback(protocol.transport.socket.close)


@pytest_twisted.ensureDeferred
async def test_who_waits_at_a_door_that_closes_still_comes_in(stack: ExitStack) -> None:
    reactor: Any = the_reactor()
    guests = Guests()
    crowd, turns = Crowd(Bounds(), reactor.seconds), Turns(reactor, thread_time)
    door = Door(reactor, "tcp:0:interface=127.0.0.1", guests, crowd=crowd, turns=turns, tls=None)
    door.open()
    port = door.port
    closed = Deferred.fromCoroutine(door.close())
    stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    await closed
    assert len(guests.came) == 1
    guests.came[0].transport.abortConnection()
    await deferLater(reactor, 0)


@pytest.mark.parametrize(
    ("endpoint", "kept"), [("tcp:0:interface=127.0.0.1", BACKLOG), ("tcp:0:interface=127.0.0.1:backlog=7", 7)]
)
@pytest_twisted.ensureDeferred
async def test_the_system_keeps_as_many_as_we_say_or_the_endpoint(endpoint: str, kept: int) -> None:
    reactor: Any = the_reactor()
    crowd, turns = Crowd(Bounds(), reactor.seconds), Turns(reactor, thread_time)
    door = Door(reactor, endpoint, Guests(), crowd=crowd, turns=turns, tls=None)
    door.open()
    listening: socket.socket = door._port.socket  # type: ignore[union-attr]
    try:
        # Of a listening socket the system says here how many it keeps.
        assert struct.unpack_from("I", listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 28) == (kept,)
    finally:
        await door.close()
