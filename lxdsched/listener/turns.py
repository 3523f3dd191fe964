"""Whose request is answered next when more have come in than can be answered at once.

Those who are known have the greater part of our time where strangers want more than is left: they do not have to wait
for these, nor can they keep them waiting for good. Of either, those who rest between their requests go before those who
ask all the time, however many these are: time in which a peer wants nothing earns it some of ours. Among the others
everybody gets the same share, whatever they ask for (start-time fair queueing).

A slice of each turn of the reactor goes into answers, so that meanwhile new requests come in and are seen, and hosts
are heard. While there is time for everybody nobody waits.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lxdsched.listener.peers import Peer, Peers

SLICE = 0.002
"""Seconds of each turn of the reactor that go into answers, where only one peer waits; more of them share it."""
LEAST = 0.0005
"""Seconds that do however many wait: each turn costs something beside its answers."""
KNOWN = 3.0
"""How much more of our time those who are known get than strangers do, where both want more than there is."""


class _Rank:
    """Those who are known, or strangers. `used` is by what they have their turn, `now` a fair share among them."""

    __slots__ = ("heap", "now", "used", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.heap: list[tuple[tuple[bool, float], int, Peer]] = []
        self.used = 0.0
        self.now = 0.0


class Turns:
    """Hands out our time, by a `clock` of the seconds that we have worked."""

    def __init__(self, reactor: IReactorTime, clock: Callable[[], float]) -> None:
        self._reactor = reactor
        self._clock = clock
        self._peers = Peers()
        self._known, self._strangers = _Rank(KNOWN), _Rank(1.0)
        self._order = count()
        self._now = 0.0  # what a rank with its part has used
        self._spent = 0.0  # in this turn
        self._answering = False
        self._next: IDelayedCall | None = None

    def ask(self, address: str, answer: Callable[[], None], *, caller: str = "") -> None:
        """Call `answer` when it is its turn: at once if nobody waits, else later. Never within another one.

        `caller` is who asks from the address, if that is known. The empty address is that of this machine's sockets.
        """
        peer = self._peers.find(address, caller, self._reactor.seconds())
        if self._next is None:
            self._spent = 0.0
            self._next = self._reactor.callLater(0, self._turn)
        peer.asked.append(answer)
        if not peer.waits:
            self._wait(peer)
        if self._answering:
            return
        # Who would be the next one anyway need not even wait for the next turn of the reactor; and what its request
        # leads to is done as well.
        most = self._slice if self._waiting == 1 else 2 * self._slice
        while self._spent < most and (first := self._first()) is not None and first.heap[0][2] is peer:
            self._answer(first)

    @property
    def _waiting(self) -> int:
        return len(self._known.heap) + len(self._strangers.heap)

    @property
    def _slice(self) -> float:
        return max(SLICE / max(self._waiting, 1), LEAST)

    def _turn(self) -> None:
        self._next = None
        self._peers.sweep(self._reactor.seconds())
        if not self._waiting:
            return
        self._spent = 0.0
        self._next = self._reactor.callLater(0, self._turn)
        while self._spent < self._slice and (first := self._first()) is not None:
            self._answer(first)

    def _first(self) -> _Rank | None:
        """Say whose turn it is."""
        known, strangers = self._known, self._strangers
        if known.heap and (not strangers.heap or known.used <= strangers.used):
            return known
        return strangers if strangers.heap else None

    def _rank(self, peer: Peer) -> _Rank:
        return self._known if peer.known else self._strangers

    def _wait(self, peer: Peer) -> None:
        rank = self._rank(peer)
        if not rank.heap:
            rank.used = max(rank.used, self._now)
        peer.waits = True
        peer.used = max(peer.used, rank.now)
        heappush(rank.heap, (peer.place, next(self._order), peer))

    def _answer(self, rank: _Rank) -> None:
        """Answer the first of a rank."""
        (by_use, used), _, peer = heappop(rank.heap)
        if by_use:
            rank.now = max(rank.now, used)
        self._now = max(self._now, rank.used)
        answer = peer.asked.popleft()
        began = self._clock()
        peer.rests_since = self._reactor.seconds()
        self._answering = True
        try:
            answer()
        finally:
            self._answering = False
            peer.rests_since = self._reactor.seconds()
            took = self._clock() - began
            self._spent += took
            rank.used += took / rank.weight
            peer.spend(took)
            peer.waits = False
            if peer.asked:
                self._wait(peer)
