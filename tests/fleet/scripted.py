"""A host whose client answers what the test says and when, on a clock that the test moves.

The client is a collaborator of `Host`, not a likeness of LXD: what LXD answers is for the tests with a server. Here the
test decides the order in which things come to pass, which no server can promise.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater

from lxdsched.fleet.client import Description, HostClient, HostError
from lxdsched.fleet.contacts import Contacts
from lxdsched.fleet.events import Event
from lxdsched.fleet.fleet import Fleet
from lxdsched.fleet.host import Host
from lxdsched.fleet.listing import OddRow
from lxdsched.fleet.payloads import Row
from lxdsched.fleet.settings import Counting, HostSettings, Patience
from lxdsched.model import Capacity, InstanceType, Resources, State
from lxdsched.tls import Identity
from tests.support import GIB

T = TypeVar("T")

CREATED = Event("instance-created", "/1.0/instances/c1", "none")
CONFIGURED = Event("config-updated", "/1.0", "none")
BROKEN = HostError(State.UNREACHABLE, "its database is closed")

DESCRIBE, DRAINED, LIST, GREET, LISTEN = "describe", "drained", "list", "greet", "listen"
"""The questions."""

_MOST_CALLS = 200_000
"""Delayed calls that a test may cause; who causes more asks without end."""


def row(name: str, cpu: str = "1") -> Row:
    """An instance that runs."""
    limits = {"limits.cpu": cpu, "limits.memory": "1GiB"}
    return Row(name=name, status="Running", type="container", location="node", expanded_config=limits)


class ScriptedStream:
    """An open stream."""

    def __init__(self, heard: Callable[[Event], None], lost: Callable[[str], None]) -> None:
        self.heard = heard
        self._lost = lost
        self.open = True

    def close(self) -> None:
        self.open = False

    def end(self) -> None:
        """End by itself."""
        assert self.open
        self.open = False
        self._lost("it was cut")


class ScriptedClient:
    """Answers with what is so at the moment of the question, after `seconds[question]`.

    A question in `failing` ends with that error instead, and one in `held` waits for `answer`. `before` is called with
    each question. As with the real client, a question that is cancelled drops the connection.
    """

    def __init__(self, clock: Clock, *, clustered: bool) -> None:
        self.connected = 1
        self.rows: list[Row] = []
        self.drain: str | None = None
        self.seconds: dict[str, float] = {}
        self.failing: dict[str, Exception] = {}
        self.held: set[str] = set()
        self.before: Callable[[str], None] = lambda _question: None
        self.asked: list[str] = []
        self.streams: list[ScriptedStream] = []
        self._clock = clock
        self._clustered = clustered
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def waiting(self, question: str) -> int:
        """How many questions of a kind are held."""
        return sum(kind == question and not answer.called for kind, answer in self._waiting)

    def answer(self, question: str) -> None:
        """Answer the eldest question of a kind that is held."""
        next(answer for kind, answer in self._waiting if kind == question and not answer.called).callback(None)

    async def describe(self) -> Description:
        capacity = Capacity(
            name="node",
            total=Resources(16000, 64 * GIB),
            usable=Resources(16000, 64 * GIB),
            cpus=frozenset(range(16)),
            architectures=frozenset({"x86_64"}),
            instance_types=frozenset(InstanceType),
            clustered=self._clustered,
        )
        return await self._ask(DESCRIBE, Description(capacity, self.drain))

    async def drained(self) -> str | None:
        return await self._ask(DRAINED, self.drain)

    async def instances(self) -> tuple[list[Row], list[OddRow]]:
        return await self._ask(LIST, (list(self.rows), []))

    async def greet(self) -> None:
        await self._ask(GREET, None)

    async def listen(self, heard: Callable[[Event], None], lost: Callable[[str], None]) -> ScriptedStream:
        await self._ask(LISTEN, None)
        self.streams.append(ScriptedStream(heard, lost))
        return self.streams[-1]

    async def close(self) -> None:
        for _, answer in self._waiting:
            if not answer.called:
                answer.errback(HostError(State.UNREACHABLE, "the connection was dropped"))

    async def _ask(self, question: str, answer: T) -> T:
        self.asked.append(question)
        self.before(question)
        error = self.failing.get(question)
        try:
            if question in self.held:
                waiting: Deferred[None] = Deferred()
                self._waiting.append((question, waiting))
                await waiting
            else:
                await deferLater(self._clock, self.seconds.get(question, 0.0))
        except CancelledError:
            self.connected += 1
            raise
        if error is not None:
            raise error
        return answer


class Scene:
    """One such host, in a fleet of its own. Times are in seconds."""

    def __init__(self, *, clustered: bool = False, patience: Patience | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.client = ScriptedClient(self.clock, clustered=clustered)
        patience = patience or Patience()
        self.host = Host(
            HostSettings("h", "https://h", cast(Identity, None)),
            cast(HostClient, self.client),
            self.clock,
            patience=patience,
            counting=Counting(),
            contacts=Contacts(self.clock),
            random=Random(1),
        )
        self.fleet = Fleet([self.host], self.clock, patience.question)
        self._calls = 0

    @property
    def state(self) -> State:
        """How the host stands."""
        return self.host.view.state

    @property
    def names(self) -> set[str]:
        """The instances that are known to be there."""
        return {member.removeprefix("default/") for member in self.host.view.allocation.members}

    @property
    def listening(self) -> bool:
        """Whether the stream is open."""
        return bool(self.client.streams) and self.client.streams[-1].open

    def start(self, seconds: float = 2.0) -> None:
        """Start the host, and wait."""
        self.fleet.start()
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Let time pass, each delayed call at its own moment."""
        end = self.clock.seconds() + seconds
        while (due := self._due()) is not None and due <= end:
            self._calls += 1
            assert self._calls < _MOST_CALLS, "it does not come to rest"
            self.clock.advance(max(due - self.clock.seconds(), 0.0))
        self.clock.advance(max(end - self.clock.seconds(), 0.0))

    def wait_for(self, condition: Callable[[], bool], most: float = 60.0) -> float:
        """Let time pass until a condition holds, and say how long that took; no longer than `most`."""
        began = self.clock.seconds()
        while not condition():
            assert self.clock.seconds() - began < most, f"waited {most} s in vain; {self.host.view}"
            self.wait(0.01)
        return self.clock.seconds() - began

    def tell(self, event: Event = CREATED) -> None:
        """Tell of an event by the open stream."""
        assert self.listening
        self.client.streams[-1].heard(event)

    def create(self, name: str) -> None:
        """Create an instance, and tell of it where anybody listens."""
        self.client.rows.append(row(name))
        if self.listening:
            self.tell()

    def cut(self) -> None:
        """End the open stream."""
        self.client.streams[-1].end()

    def request(self) -> Deferred[None]:
        """Ask the fleet as a request does."""
        return Deferred.fromCoroutine(self.fleet.refresh())

    def seen_by_request(self) -> list[tuple[State, set[str]]]:
        """Ask as a request does. What it sees in the end is added to the list that is returned."""
        seen: list[tuple[State, set[str]]] = []
        self.request().addCallback(lambda _: seen.append((self.state, self.names)))
        return seen

    def count(self, question: str) -> int:
        """How often a question has been asked."""
        return self.client.asked.count(question)

    def stop(self) -> None:
        """Stop the host, which takes no time, leaves nothing in the clock, and asks nothing more."""
        asked = len(self.client.asked)
        stopping = Deferred.fromCoroutine(self.fleet.stop())
        for _ in range(5):
            self.clock.advance(0)
        assert stopping.called
        assert self.clock.getDelayedCalls() == []
        self.wait(60)
        assert self.client.asked[asked:] == []

    def _due(self) -> float | None:
        return min((call.getTime() for call in self.clock.getDelayedCalls()), default=None)
