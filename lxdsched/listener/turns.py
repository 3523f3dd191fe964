"""Whose request is answered next when more have come in than can be answered at once.

Every peer gets the same share of our time (start-time fair queueing): who has used less than its share, as one that
asks now and then has, goes before those who ask all the time, however many they are. A slice of each turn of the
reactor goes into answers, so that meanwhile new requests come in and are seen, and hosts are heard. While there is time
for everybody nobody waits. Who is known goes before all who are not: an access control that keeps strangers out also
keeps them from being in the way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from twisted.internet.interfaces import IDelayedCall, IReactorTime

SLICE = 0.003
"""Seconds of each turn of the reactor that go into answers."""
CREDIT = 0.02
"""Seconds of our time that a peer may use at once after it has used less than its share."""
_SWEEP = 1024
"""Peers that are remembered before it is looked which of them still matter."""


class _Queue:
    """What a peer waits for. `used` is the time by which its share is reckoned, in seconds."""

    __slots__ = ("asked", "stranger", "used", "waits")

    def __init__(self, used: float, *, stranger: bool) -> None:
        self.used = used
        self.stranger = stranger
        self.waits = False
        self.asked: deque[tuple[Callable[[], None], float]] = deque()


class Turns:
    """Hands out our time, by a `clock` of the seconds that we have worked."""

    def __init__(self, reactor: IReactorTime, clock: Callable[[], float]) -> None:
        self._reactor = reactor
        self.clock = clock
        self.worked = 0.0  # in all turns together
        self._queues: dict[tuple[str, bool], _Queue] = {}
        self._heap: list[tuple[bool, float, int, _Queue]] = []
        self._sweep_at = _SWEEP
        self._order = count()
        self._now = 0.0  # how much a peer with a fair share has used
        self._spent = 0.0  # in this turn
        self._answering = False
        self._next: IDelayedCall | None = None

    def ask(self, peer: str, answer: Callable[[], None], later: float = 0.0, *, known: bool = False) -> None:
        """Call `answer` when it is this peer's turn: at once if nobody waits, else later. Never within another one.

        `later` are seconds of our time that it leads to beside those that it takes. `known` tells that it is not by its
        address that the peer is told from others.
        """
        queue = self._queues.get((peer, known))
        if queue is None:
            if len(self._queues) >= self._sweep_at:
                self._sweep()
            queue = self._queues[peer, known] = _Queue(self._now - CREDIT, stranger=not known)
        else:
            queue.used = max(queue.used, self._now - CREDIT)
        if self._next is None:
            self._spent = 0.0
            self._next = self._reactor.callLater(0, self._turn)
        if not self._answering and self._at_once(queue):
            self._answer(queue, answer, later)
            return
        queue.asked.append((answer, later))
        if not queue.waits:
            self._wait(queue)

    def _turn(self) -> None:
        self._next = None
        if not self._heap:
            self._queues.clear()
            self._now = 0.0
            return
        self._spent = 0.0
        self._next = self._reactor.callLater(0, self._turn)
        while self._heap and self._spent < SLICE:
            _, used, _, queue = heappop(self._heap)
            queue.waits = False
            self._now = max(self._now, used)
            answer, later = queue.asked.popleft()
            try:
                self._answer(queue, answer, later)
            finally:
                if queue.asked and not queue.waits:
                    self._wait(queue)

    def _sweep(self) -> None:
        """Forget the peers that wait for nothing and have used no more than one that is new."""
        used = self._now - CREDIT
        self._queues = {peer: queue for peer, queue in self._queues.items() if queue.asked or queue.used > used}
        self._sweep_at = 2 * len(self._queues) + _SWEEP

    def _at_once(self, queue: _Queue) -> bool:
        if not self._heap:
            return self._spent < SLICE
        # Who would be the next one anyway need not even wait for the next turn of the reactor.
        stranger, used, _, _ = self._heap[0]
        return not queue.waits and (queue.stranger, queue.used) < (stranger, used) and self._spent < 2 * SLICE

    def _wait(self, queue: _Queue) -> None:
        queue.waits = True
        heappush(self._heap, (queue.stranger, queue.used, next(self._order), queue))

    def _answer(self, queue: _Queue, answer: Callable[[], None], later: float) -> None:
        began = self.clock()
        self._answering = True
        try:
            answer()
        finally:
            self._answering = False
            took = self.clock() - began + later
            self.worked += took - later
            queue.used += took
            self._spent += took
