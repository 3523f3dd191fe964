"""What has come in and waits for its turn to be read is not lost, and nobody is late who is only not read yet."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from lxdsched.listener.admission import Admission
from lxdsched.listener.crowd import Crowd
from lxdsched.listener.settings import Bounds
from lxdsched.listener.turns import SLICE, Turns
from lxdsched.web.access import Gate
from lxdsched.web.channel import GRACE
from lxdsched.web.site import BoundedSite

GET = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"
POST = b"POST /healthz HTTP/1.1\r\nHost: here\r\nContent-Length: 30000\r\n\r\n" + b"x" * 30000


class Answer(Resource):
    isLeaf = True  # noqa: N815  # Twisted's name

    def render(self, request: Any) -> bytes:
        return b"well"


class Transport(StringTransport):
    def loseWriteConnection(self) -> None:  # noqa: N802
        pass

    def abortConnection(self) -> None:  # noqa: N802
        self.disconnected = True  # as with TCP, it is lost a little later, and it is not `disconnecting`


class Scene:
    """A site by a clock of time and one of work, and a client who has been answered once."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.worked = 0.0
        self.turns = Turns(self.reactor, lambda: self.worked)
        bounds = Bounds(sending=10, idle=20)
        crowd = Crowd(bounds, self.reactor.seconds)
        answer = Answer()  # type: ignore[no-untyped-call]
        gate = Gate(None, self.reactor.seconds, frozenset())
        self.site = BoundedSite(answer, self.reactor, bounds=bounds, crowd=crowd, turns=self.turns, gate=gate)
        admission = Admission(self.site, crowd, self.turns, self.reactor)
        self.transport = Transport()  # type: ignore[no-untyped-call]
        self.passage = cast(Any, admission.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)))
        self.passage.makeConnection(self.transport)
        self.send(GET)
        self.turn()
        assert self.answers == 1

    @property
    def answered(self) -> bytes:
        """What the client has got."""
        return bytes(self.transport.value())  # type: ignore[no-untyped-call]

    @property
    def answers(self) -> int:
        """How many answers the client has got."""
        return self.answered.count(b"\r\n\r\nwell")

    def send(self, data: bytes) -> None:
        """Have the client send something."""
        self.passage.dataReceived(data)

    def busy(self) -> None:
        """Have no time left in this turn of the reactor, nor in the next ones."""

        def work() -> None:
            self.worked += SLICE * 10
            if self.busily:
                self.turns.ask("192.0.2.9", work, caller="somebody")

        self.busily = True
        self.turns.ask("192.0.2.9", work, caller="somebody")

    def rest(self) -> None:
        """Have time again, and read what there is."""
        self.busily = False
        for _ in range(10):
            self.turn()

    def turn(self) -> None:
        """Let the reactor turn once; no time goes by."""
        due = [call for call in self.reactor.calls if call.getTime() <= self.reactor.seconds()]
        for call in due:
            if call.active():
                self.reactor.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)

    def wait(self, seconds: float) -> None:
        """Let time go by, in which all turns go to others."""
        self.reactor.rightNow += seconds
        for call in [each for each in self.reactor.calls if each.getTime() <= self.reactor.seconds()]:
            if call.active() and getattr(call.func, "__func__", None) is not Turns._turn:
                self.reactor.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


def unread(scene: Scene, data: bytes = GET) -> None:
    """Have the client send something that is not read at once."""
    scene.busy()
    scene.send(data)
    assert scene.answers == 1


def test_what_is_unread_when_connections_are_renewed_is_answered() -> None:
    scene = Scene()
    unread(scene)
    scene.site.renew()
    scene.rest()
    assert scene.answers == 2
    assert scene.transport.disconnecting


@pytest.mark.parametrize("waits", [0, GRACE, 5 * GRACE])
def test_what_is_unread_when_the_daemon_stops_is_answered(waits: float) -> None:
    scene = Scene()
    unread(scene)
    drained = Deferred.fromCoroutine(scene.site.drain(60))
    for _ in range(round(waits / GRACE) + 1):
        scene.wait(GRACE)
    assert not scene.transport.disconnecting
    scene.rest()
    assert scene.answers == 2
    assert scene.transport.disconnecting
    scene.passage.connectionLost(Failure(connectionDone.value))
    assert drained.called


def test_a_request_that_was_coming_in_when_connections_are_renewed_is_the_last_one() -> None:
    scene = Scene()
    scene.send(POST[:5000])
    scene.site.renew()
    scene.send(POST[5000:])
    scene.turn()
    assert scene.answers == 2
    assert scene.transport.disconnecting


def test_a_connection_with_something_unread_is_not_idle() -> None:
    scene = Scene()
    scene.wait(19)
    unread(scene)
    scene.wait(2)
    assert not scene.transport.disconnecting
    scene.rest()
    assert scene.answers == 2


def test_what_is_unread_of_a_connection_that_was_hung_up_on_is_not_looked_at() -> None:
    scene = Scene()
    unread(scene)
    (channel,) = scene.site.channels
    channel.drop()
    scene.rest()
    assert scene.answers == 1


def test_an_idle_connection_ends() -> None:
    scene = Scene()
    scene.wait(21)
    assert scene.transport.disconnecting


def test_a_body_that_has_come_in_and_is_not_read_yet_is_not_late() -> None:
    scene = Scene()
    scene.send(POST[:5000])
    unread(scene, POST[5000:])
    for _ in range(30):
        scene.wait(GRACE)
    scene.rest()
    assert scene.answers == 2
    assert b"408" not in scene.answered


def test_a_body_that_has_not_come_in_is_late() -> None:
    scene = Scene()
    scene.send(POST[:5000])
    scene.wait(11)
    assert b"408" in scene.answered
