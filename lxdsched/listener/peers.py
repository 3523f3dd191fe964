"""Those who want something of us: what each has used of our time, and which of them we remember.

A peer is a caller who is known by name, or else an address. Addresses from which such a caller has asked of late are
known too: the caller's next connection comes from there, and on it nothing tells who it is until it has been read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil

EARNS = 0.05
"""Seconds of our time that a peer earns with each second in which it wants nothing."""
MOST = 0.05
"""Seconds of our time that a peer can have earned, and that it can owe."""
FIRST = 0.004
"""Seconds of our time that a new peer starts with: a handshake and a request."""
WELCOME = 0.05
"""Seconds of our time that those who are new in one second start with, all together. The others start with nothing."""
ACQUAINTED = 600.0
"""Seconds for which an address is known after a caller who is known has asked from there."""
MANY = 1024
"""How many peers, and how many addresses that are known, are remembered whether that matters or not."""
_RESTED = 10.0
"""Seconds of rest after which a peer may be forgotten: by then it does not matter any more what it has used."""


class Peer:
    """One who asks. `earned` is what it has left of our time, in seconds; `used` that by which it has its turn without.

    `asked` is what it waits for. `known` tells callers, and addresses of such, from strangers.
    """

    __slots__ = ("asked", "earned", "known", "rests_since", "returned", "used", "waits")

    def __init__(self, now: float, earned: float, *, known: bool) -> None:
        self.earned = earned
        self.used = 0.0
        self.rests_since = now
        self.known = known
        self.returned = False  # after it had rested
        self.waits = False
        self.asked: deque[Callable[[], None]] = deque()

    def rest(self, now: float) -> None:
        """Take note that it wanted nothing until now."""
        earned = max(now - self.rests_since, 0.0) * EARNS
        self.returned = self.returned or earned >= MOST
        self.earned = min(self.earned + earned, MOST)

    def spend(self, seconds: float) -> None:
        """Take note of what it has used of our time."""
        if self.earned <= 0:
            self.used += seconds
        self.earned = max(self.earned - seconds, -MOST)

    @property
    def place(self) -> tuple[bool, float]:
        """Who comes first: the lowest. Of those who have earned about as much it is the one who has waited longest."""
        return (False, -ceil(self.earned / FIRST)) if self.earned > 0 else (True, self.used)


class Peers:
    """All who are remembered."""

    def __init__(self) -> None:
        self._peers: dict[tuple[str, bool], Peer] = {}
        self._acquainted: dict[str, float] = {}  # until when, the oldest first
        self._welcome = WELCOME
        self._welcomed_at = 0.0
        self._swept_at = 0.0

    def __len__(self) -> int:
        return len(self._peers)

    def find(self, address: str, caller: str, now: float) -> Peer:
        """Find who asks: a `caller` who is known, or an address, empty for this machine's own sockets."""
        if caller:
            self._acquaint(address, now)
            who, known = caller, True
        else:
            # No caller's name has a space.
            known = self._acquainted.get(address, now) > now
            who = f"at {address}" if known else address
        peer = self._peers.get((who, known))
        if peer is None:
            peer = self._peers[who, known] = Peer(now, self._first(now, known=known), known=known)
        elif not peer.asked:
            peer.rest(now)
        return peer

    def sweep(self, now: float) -> None:
        """Forget those who do not matter any more, if there are many and it was not just done.

        Who has come back after a rest is remembered longer than who is new: it has something to lose.
        """
        if len(self._peers) <= MANY or 0 <= now - self._swept_at < _RESTED:
            return
        self._swept_at = now
        resting = [
            who for who, peer in self._peers.items() if not peer.asked and not 0 <= now - peer.rests_since <= _RESTED
        ]
        returned = [who for who in resting if self._peers[who].returned]
        returned.sort(key=lambda who: self._peers[who].rests_since)
        kept = set(returned[-MANY:])
        for who in resting:
            if who not in kept:
                del self._peers[who]

    def _first(self, now: float, *, known: bool) -> float:
        """Say what a new peer starts with."""
        if known:
            return FIRST
        self._welcome = min(self._welcome + max(now - self._welcomed_at, 0.0) * WELCOME, WELCOME)
        self._welcomed_at = now
        first = min(FIRST, self._welcome)
        self._welcome -= first
        return first

    def _acquaint(self, address: str, now: float) -> None:
        self._acquainted.pop(address, None)
        if len(self._acquainted) >= MANY:
            del self._acquainted[next(iter(self._acquainted))]
        self._acquainted[address] = now + ACQUAINTED
