"""Whose request is answered next when more have come in than can be answered at once.

Every peer gets the same share of our time (start-time fair queueing): who has used less than its share, as one that
asks now and then has, goes before those who ask all the time, however many they are. A slice of each turn of the
reactor goes into answers, so that meanwhile new requests come in and are seen, and hosts are heard. While there is time
for everybody nobody waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from twisted.internet.interfaces import IDelayedCall, IReactorTime

SLICE = 0.005
"""Seconds of each turn of the reactor that go into answers."""
CREDIT = 0.02
"""Seconds of our time that a peer may use at once after it has used less than its share."""


class _Queue:
    """What a peer waits for. `used` is the time by which its share is reckoned, in seconds."""

    __slots__ = ("asked", "used", "waits")

    def __init__(self, used: float) -> None:
        self.used = used
        self.waits = False
        self.asked: deque[tuple[Callable[[], None], float]] = deque()


class Turns:
    """Hands out our time, by a `clock` of the seconds that we have worked."""

    def __init__(self, reactor: IReactorTime, clock: Callable[[], float]) -> None:
        self._reactor = reactor
        self._clock = clock
        self._queues: dict[str, _Queue] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = count()
        self._now = 0.0  # how much a peer with a fair share has used
        self._spent = 0.0  # in this turn
        self._answering = False
        self._next: IDelayedCall | None = None

    def ask(self, peer: str, answer: Callable[[], None], later: float = 0.0) -> None:
        """Call `answer` when it is this peer's turn: at once if nobody waits, else later. Never within another one.

        `later` are seconds of our time that it leads to beside those that it takes.
        """
        queue = self._queues.get(peer)
        if queue is None:
            queue = self._queues[peer] = _Queue(self._now - CREDIT)
        else:
            queue.used = max(queue.used, self._now - CREDIT)
        if self._next is None:
            self._spent = 0.0
            self._next = self._reactor.callLater(0, self._turn)
        if not self._heap and not self._answering and self._spent < SLICE:
            self._answer(queue, answer, later)
            return
        queue.asked.append((answer, later))
        if not queue.waits:
            self._wait(peer, queue)

    def _turn(self) -> None:
        self._next = None
        if not self._heap:
            self._queues.clear()
            self._now = 0.0
            return
        self._spent = 0.0
        self._next = self._reactor.callLater(0, self._turn)
        while self._heap and self._spent < SLICE:
            used, _, peer = heappop(self._heap)
            queue = self._queues[peer]
            queue.waits = False
            self._now = max(self._now, used)
            answer, later = queue.asked.popleft()
            try:
                self._answer(queue, answer, later)
            finally:
                if queue.asked and not queue.waits:
                    self._wait(peer, queue)

    def _wait(self, peer: str, queue: _Queue) -> None:
        queue.waits = True
        heappush(self._heap, (queue.used, next(self._order), peer))

    def _answer(self, queue: _Queue, answer: Callable[[], None], later: float) -> None:
        began = self._clock()
        self._answering = True
        try:
            answer()
        finally:
            self._answering = False
            took = self._clock() - began + later
            queue.used += took
            self._spent += took
