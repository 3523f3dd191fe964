"""How connections are let in, and that what they send is read in turns."""

from __future__ import annotations

import os
import socket
from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from lxdsched.listener.admission import Admission
from lxdsched.listener.crowd import Crowd, Guest
from lxdsched.listener.settings import Bounds
from lxdsched.listener.turns import SLICE, Turns
from tests.conftest import Logged


class Conversation(Protocol):
    """What a client has said, as it was read; to read a piece takes half a slice."""

    guest: Guest | None = None
    peer = ""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.pieces: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        if data.startswith(b"break"):
            raise ZeroDivisionError
        self.scene.worked += SLICE / 2
        self.pieces.append(data)
        self.scene.read.append((self.peer, len(data)))

    @property
    def said(self) -> bytes:
        return b"".join(self.pieces)


class Hall(Factory):
    """Where those come in who were let in."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def buildProtocol(self, addr: Any) -> Conversation:  # noqa: N802
        if self.scene.full:
            raise ZeroDivisionError
        self.scene.came.append(Conversation(self.scene))
        return self.scene.came[-1]


class Client:
    """A client and its connection."""

    def __init__(self, scene: Scene, host: str) -> None:
        self.transport = StringTransport()
        self.passage: Any = scene.admission.buildProtocol(IPv4Address("TCP", host, 1))
        assert self.passage is not None
        self.passage.makeConnection(self.transport)

    @property
    def heard(self) -> bool:
        """Whether more would be taken of what it sends."""
        return self.transport.producerState == "producing"

    @property
    def within(self) -> Conversation | None:
        """What is made of it, once it is let in."""
        return cast(Conversation | None, self.passage._within)

    def send(self, data: bytes) -> None:
        """Send something."""
        self.passage.dataReceived(data)

    def leave(self) -> None:
        """End the connection."""
        self.passage.connectionLost(Failure(connectionDone.value))


class Scene:
    """An admission, by a clock of work and one of time, and what was read in which order."""

    def __init__(self, **bounds: Any) -> None:
        self.reactor = Clock()
        self.worked = 0.0
        self.read: list[tuple[str, int]] = []
        self.came: list[Conversation] = []
        self.full = False  # nobody more can be let in
        turns = Turns(self.reactor, lambda: self.worked)
        crowd = Crowd(Bounds(**bounds), self.reactor.seconds)
        self.admission = Admission(Hall(self), crowd, turns, self.reactor)

    def turn(self) -> None:
        """Let the reactor turn once."""
        due = [call for call in self.reactor.calls if call.getTime() <= self.reactor.seconds()]
        for call in due:
            self.reactor.calls.remove(call)
            call.func()

    def busy(self, host: str = "192.0.2.99") -> Client:
        """Have a client send so much that its reading takes many turns."""
        greedy = Client(self, host)
        greedy.send(b"x" * 64 * 4096)
        return greedy


def test_what_a_client_sends_is_read_at_once_while_there_is_time() -> None:
    scene = Scene()
    Client(scene, "192.0.2.1").send(b"hello")
    assert scene.came[0].said == b"hello"


def test_a_long_piece_is_read_bit_by_bit_and_others_are_read_between() -> None:
    scene = Scene()
    greedy = scene.busy()
    for _ in range(2):
        scene.turn()
    other = Client(scene, "192.0.2.1")
    other.send(b"hello")
    scene.turn()
    assert scene.came[1].said == b"hello"
    assert max(length for _, length in scene.read) == 4096
    assert len(scene.came[0].said) < 10 * 4096
    while len(scene.came[0].said) < 64 * 4096:
        scene.turn()
    assert scene.came[0].said == b"x" * 64 * 4096
    assert greedy.heard


def test_who_waits_to_be_read_is_not_listened_to_once_it_has_sent_more() -> None:
    scene = Scene()
    greedy = scene.busy()
    assert greedy.heard, "nothing more has come"
    greedy.send(b"y" * 10)
    assert not greedy.heard
    while len(scene.came[0].said) < 64 * 4096 + 10:
        scene.turn()
    assert greedy.heard
    assert scene.came[0].said.endswith(b"xy" + b"y" * 9)


def test_who_has_left_is_not_read_any_more() -> None:
    scene = Scene()
    greedy = scene.busy()
    read = len(scene.read)
    greedy.leave()
    for _ in range(5):
        scene.turn()
    assert len(scene.read) == read


def test_what_known_callers_send_is_read_before_what_strangers_do() -> None:
    scene = Scene()
    for number in range(20):
        scene.busy(f"192.0.2.{number}")
    known = Client(scene, "192.0.2.1")  # behind the same address as a greedy one
    while (within := known.within) is None:
        scene.turn()
    assert within.guest is not None
    within.guest.caller = "ci"
    known.send(b"hello")
    scene.turn()
    assert within.said == b"hello"


def test_a_failure_to_read_ends_that_connection_alone_and_is_logged(logged: Logged) -> None:
    scene = Scene()
    client = Client(scene, "192.0.2.1")
    client.send(b"break")
    assert client.transport.disconnected
    assert [each["log_failure"].type for each in logged.failures()] == [ZeroDivisionError]
    logged.clear()
    Client(scene, "192.0.2.2").send(b"hello")
    assert scene.came[1].said == b"hello"


def test_a_failure_to_let_somebody_in_ends_that_connection_alone(logged: Logged) -> None:
    scene = Scene()
    scene.full = True
    client = Client(scene, "192.0.2.1")
    assert client.transport.disconnected
    assert [each["log_failure"].type for each in logged.failures()] == [ZeroDivisionError]
    logged.clear()
    scene.full = False
    Client(scene, "192.0.2.1").send(b"hello")
    assert scene.came[0].said == b"hello"


def test_a_connection_says_whether_something_on_it_is_unread() -> None:
    scene = Scene()
    greedy = scene.busy()
    guest = scene.came[0].guest
    assert guest is not None
    assert guest.unread
    while greedy.passage._unread:
        scene.turn()
    assert not guest.unread
    greedy.send(b"x" * 4096 * 3)
    assert guest.unread


def test_who_comes_too_often_waits_at_the_door_and_nothing_is_made_for_it() -> None:
    scene = Scene(rate_per_peer=2)
    clients = [Client(scene, "192.0.2.1") for _ in range(4)]
    assert len(scene.came) < len(clients)
    assert not clients[-1].heard
    scene.reactor.advance(10)
    assert len(scene.came) == len(clients)
    assert clients[-1].heard


def test_what_is_sent_at_the_door_is_read_after_coming_in() -> None:
    scene = Scene()
    scene.busy("192.0.2.1")
    late = Client(scene, "192.0.2.1")
    late.send(b"hello")
    assert len(scene.came) == 1
    while len(scene.came) < 2 or not scene.came[1].said:
        scene.turn()
    assert scene.came[1].said == b"hello"


def test_the_protocol_within_knows_whose_connection_it_is() -> None:
    scene = Scene()
    Client(scene, "192.0.2.7")
    assert scene.came[0].peer == "192.0.2.7"
    assert scene.came[0].guest is not None


@pytest.mark.parametrize("pieces", [1, 3])
def test_every_byte_arrives_once_and_in_order(pieces: int) -> None:
    scene = Scene()
    sent = bytes(range(256)) * 100
    client = Client(scene, "192.0.2.1")
    for at in range(0, len(sent), len(sent) // pieces + 1):
        client.send(sent[at : at + len(sent) // pieces + 1])
    while len(scene.came[0].said) < len(sent):
        scene.turn()
    assert scene.came[0].said == sent


def test_the_users_of_a_unix_socket_are_told_from_each_other() -> None:
    scene = Scene()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        passage: Any = scene.admission.buildProtocol(UNIXAddress(None))
        transport = StringTransport()
        transport.socket = ours  # type: ignore[attr-defined]
        passage.makeConnection(transport)
    assert scene.came[0].peer == f"user {os.geteuid()}"


def test_who_waits_for_its_turn_when_we_stop_is_let_in_before_we_go() -> None:
    scene = Scene()
    scene.busy()
    other = Client(scene, "192.0.2.1")
    other.send(b"hello")
    assert other.within is None
    stopping = Deferred.fromCoroutine(scene.admission.let_in())
    assert not stopping.called
    for _ in range(10):
        scene.turn()
    assert stopping.called
    assert other.within is not None
    assert other.within.said == b"hello"


def test_who_has_to_wait_since_it_asks_too_often_is_let_in_before_we_go() -> None:
    scene = Scene(rate_per_peer=1)
    first, second = Client(scene, "192.0.2.1"), Client(scene, "192.0.2.1")
    assert (first.within is None, second.within is None) == (False, True)
    scene.turn()
    assert second.within is None
    stopping = Deferred.fromCoroutine(scene.admission.let_in())
    scene.turn()
    assert second.within is not None
    assert stopping.called
    assert second.heard


def test_nobody_is_waited_for_who_is_in_or_has_left() -> None:
    scene = Scene(rate_per_peer=1)
    assert Deferred.fromCoroutine(scene.admission.let_in()).called
    Client(scene, "192.0.2.1")
    assert Deferred.fromCoroutine(scene.admission.let_in()).called
    gone = Client(scene, "192.0.2.1")
    stopping = Deferred.fromCoroutine(scene.admission.let_in())
    gone.leave()
    assert stopping.called
    assert not [call for call in scene.reactor.calls if call.getTime() > 0]


def test_we_do_not_wait_for_ever_for_those_who_come_in_when_we_stop() -> None:
    scene = Scene()
    scene.busy()
    Client(scene, "192.0.2.1")
    stopping = Deferred.fromCoroutine(scene.admission.let_in())
    (late,) = [call for call in scene.reactor.calls if call.getTime() > 0]
    scene.reactor.rightNow = late.getTime()
    scene.reactor.calls.remove(late)
    late.called = 1
    late.func()
    assert stopping.called
