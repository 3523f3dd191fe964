"""Whose request is answered next when more have come in than can be answered at once.

Who is known goes before all who are not: an access control that keeps strangers out also keeps them from being in the
way. Of those, the ones who rest between their requests go before those who ask all the time, however many these are:
time in which a peer wants nothing earns it some of ours. Among the others everybody gets the same share of our time,
whatever they ask for (start-time fair queueing).

A slice of each turn of the reactor goes into answers, so that meanwhile new requests come in and are seen, and hosts
are heard. While there is time for everybody nobody waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from twisted.internet.interfaces import IDelayedCall, IReactorTime

SLICE = 0.002
"""Seconds of each turn of the reactor that go into answers, where only one peer waits; more of them share it."""
LEAST = 0.0005
"""Seconds that do however many wait: each turn costs something beside its answers."""
EARNS = 0.02
"""Seconds of our time that a peer earns with each second in which it wants nothing."""
MOST = 0.02
"""Seconds of our time that a peer can have earned, and that it can owe."""
FIRST = 0.004
"""Seconds of our time that a new peer starts with: a handshake and a request."""
_RESTED = 2 * MOST / EARNS
"""Seconds of rest after which it does not matter any more what a peer has used."""
_SWEEP = 1024
"""Peers that are remembered before it is looked which of them still matter."""


class _Queue:
    """What a peer waits for. `earned` is what it has left, in seconds; `used` that by which it has its turn without."""

    __slots__ = ("asked", "earned", "rests_since", "stranger", "used", "waits")

    def __init__(self, now: float, *, stranger: bool) -> None:
        self.earned = FIRST
        self.used = 0.0
        self.rests_since = now
        self.stranger = stranger
        self.waits = False
        self.asked: deque[Callable[[], None]] = deque()

    def rest(self, now: float) -> None:
        """Take note that it wanted nothing until now."""
        self.earned = min(self.earned + max(now - self.rests_since, 0.0) * EARNS, MOST)

    def spend(self, seconds: float) -> None:
        """Take note of what was used of our time."""
        if self.earned <= 0:
            self.used += seconds
        self.earned = max(self.earned - seconds, -MOST)

    @property
    def place(self) -> tuple[bool, bool, float]:
        """Who comes first: the lowest."""
        if self.earned > 0:
            return self.stranger, False, -self.earned
        return self.stranger, True, self.used


class Turns:
    """Hands out our time, by a `clock` of the seconds that we have worked."""

    def __init__(self, reactor: IReactorTime, clock: Callable[[], float]) -> None:
        self._reactor = reactor
        self._clock = clock
        self._queues: dict[tuple[str, bool], _Queue] = {}
        self._heap: list[tuple[tuple[bool, bool, float], int, _Queue]] = []
        self._sweep_at = _SWEEP
        self._order = count()
        self._now = [0.0, 0.0]  # how much one with a fair share has used, of those who are known and of strangers
        self._spent = 0.0  # in this turn
        self._answering = False
        self._next: IDelayedCall | None = None

    def ask(self, peer: str, answer: Callable[[], None], *, known: bool = False) -> None:
        """Call `answer` when it is this peer's turn: at once if nobody waits, else later. Never within another one.

        `known` tells that it is not by its address that the peer is told from others.
        """
        queue = self._queue(peer, known)
        if self._next is None:
            self._spent = 0.0
            self._next = self._reactor.callLater(0, self._turn)
        queue.asked.append(answer)
        if not queue.waits:
            self._wait(queue)
        if self._answering:
            return
        # Who would be the next one anyway need not even wait for the next turn of the reactor; and what its request
        # leads to is done as well.
        most = self._slice if len(self._heap) == 1 else 2 * self._slice
        while self._heap and self._heap[0][2] is queue and self._spent < most:
            self._answer()

    def _queue(self, peer: str, known: bool) -> _Queue:
        now = self._reactor.seconds()
        queue = self._queues.get((peer, known))
        if queue is None:
            if len(self._queues) >= self._sweep_at:
                self._sweep(now)
            queue = self._queues[peer, known] = _Queue(now, stranger=not known)
        elif not queue.asked:
            queue.rest(now)
        return queue

    def _turn(self) -> None:
        self._next = None
        if not self._heap:
            return
        self._spent = 0.0
        self._next = self._reactor.callLater(0, self._turn)
        while self._heap and self._spent < self._slice:
            self._answer()

    @property
    def _slice(self) -> float:
        return max(SLICE / len(self._heap), LEAST)

    def _sweep(self, now: float) -> None:
        """Forget the peers that want nothing and have rested for so long that they are like new ones."""
        self._queues = {
            peer: queue for peer, queue in self._queues.items() if queue.asked or now - queue.rests_since < _RESTED
        }
        self._sweep_at = 2 * len(self._queues) + _SWEEP

    def _wait(self, queue: _Queue) -> None:
        queue.waits = True
        queue.used = max(queue.used, self._now[queue.stranger])
        heappush(self._heap, (queue.place, next(self._order), queue))

    def _answer(self) -> None:
        """Answer who is next."""
        (stranger, by_use, used), _, queue = heappop(self._heap)
        if by_use:
            self._now[stranger] = max(self._now[stranger], used)
        answer = queue.asked.popleft()
        began = self._clock()
        queue.rests_since = self._reactor.seconds()
        self._answering = True
        try:
            answer()
        finally:
            self._answering = False
            queue.rests_since = self._reactor.seconds()
            took = self._clock() - began
            queue.spend(took)
            self._spent += took
            queue.waits = False
            if queue.asked:
                self._wait(queue)
