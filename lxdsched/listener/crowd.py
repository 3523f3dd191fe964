"""All connections: how many there are, whose they are, and which one has to go where another one shall come in.

A connection can be spared unless its request is being answered at the moment: also one that waits for its turn, or
because its peer asks too often. Those of callers who are known go last. Of the others, the peer that has the most of
them loses one of its own, so that nobody takes places from those who have few. Of the connections of a peer, and of all
where nobody has more than a few, it is the one that has waited longest without ever having sent a whole request, else
the one that has waited longest.

Beside that each peer has a budget for connections and requests, which fills again as time goes by. Who has overdrawn it
is not refused, but has to wait: for the next request of a connection, or for the first one of a new connection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv6Address

from lxdsched.listener.settings import Bounds

MOST_DEBT = 2.0
"""Seconds for which a peer may have overdrawn its budget and still make connections."""
FEW = 4
"""Connections that a peer may have without being asked first to make room for others."""
_SWEEP = 1024
"""Peers without a connection that are remembered before it is looked which of them still matter."""


class Full(StrEnum):
    """Why a connection was not let in, or had to go."""

    CONNECTIONS = "connections"
    CONNECTIONS_PER_PEER = "connections_per_peer"
    RATE_PER_PEER = "rate_per_peer"


class Guest:
    """One connection, as long as it is there. `drop` ends it at once; `caller` is who asked last, if known.

    It is `unread` while something has come in on it that waits for its turn to be read.
    """

    __slots__ = ("asked", "caller", "drop", "peer", "there", "unread")

    def __init__(self, peer: _Peer | None, drop: Callable[[], None]) -> None:
        self.peer = peer
        self.drop = drop
        self.asked = False  # whether a whole request has ever come in
        self.there = True
        self.caller = ""
        self.unread = False


class _Waiting:
    """Connections that wait for a request, in the order in which they can be spared."""

    __slots__ = ("_idle", "_known", "_new")

    def __init__(self) -> None:
        self._new: dict[Guest, None] = {}
        self._idle: dict[Guest, None] = {}
        self._known: dict[Guest, None] = {}

    def add(self, guest: Guest) -> None:
        if guest.caller:
            self._known[guest] = None
        else:
            (self._idle if guest.asked else self._new)[guest] = None

    def remove(self, guest: Guest) -> None:
        for those in (self._new, self._idle, self._known):
            those.pop(guest, None)

    def first(self, *, known: bool = False) -> Guest | None:
        return next(iter(self._known if known else self._new or self._idle), None)


class _Peer:
    """One address. `debt` is by how much its budget was overdrawn `at` a time: below 0 there is something left."""

    __slots__ = ("at", "connections", "debt", "waiting")

    def __init__(self, debt: float, at: float) -> None:
        self.connections = 0
        self.debt = debt
        self.at = at
        self.waiting = _Waiting()


class Crowd:
    """All connections under some bounds. `clock` tells seconds."""

    def __init__(self, bounds: Bounds, clock: Callable[[], float]) -> None:
        self._bounds = bounds
        self._clock = clock
        self._peers: dict[str, _Peer] = {}
        self._waiting = _Waiting()
        self._many: dict[int, dict[_Peer, None]] = {}  # by how many connections they have, if these are more than a few
        self._sweep_at = _SWEEP
        self.connections = 0
        self.turned_away: Counter[Full] = Counter()

    def admit(self, address: str, cost: float = 1.0) -> bool:
        """Say whether a new connection from an address may come in, and make room for it.

        `cost` is what it takes of the peer's budget. The empty address is that of this machine's own sockets, which
        nothing counts per peer.
        """
        bounds = self._bounds
        if address:
            peer = self._peer(address)
            if bounds.rate_per_peer and self._charge(peer, 0) > MOST_DEBT:
                return self._turn_away(Full.RATE_PER_PEER)
            self._charge(peer, cost)
            if peer.connections >= bounds.connections_per_peer and not self._spare(
                peer.waiting.first() or peer.waiting.first(known=True), Full.CONNECTIONS_PER_PEER
            ):
                return self._turn_away(Full.CONNECTIONS_PER_PEER)
        if self.connections >= bounds.connections and not self._spare(self._spared(), Full.CONNECTIONS):
            return self._turn_away(Full.CONNECTIONS)
        return True

    def join(self, address: str, drop: Callable[[], None]) -> Guest:
        """Count a connection that was let in. It waits for its first request."""
        guest = Guest(self._peer(address) if address else None, drop)
        self.connections += 1
        if guest.peer is not None:
            self._count(guest.peer, 1)
        self._wait(guest)
        return guest

    def leave(self, guest: Guest) -> None:
        """Count a connection no more. What has left before leaves no second time."""
        if not guest.there:
            return
        guest.there = False
        self.connections -= 1
        self._waiting.remove(guest)
        if guest.peer is not None:
            self._count(guest.peer, -1)
            guest.peer.waiting.remove(guest)

    def ask(self, guest: Guest) -> None:
        """Take note that a whole request has come in on a connection, which waits for its turn now."""
        self.keep(guest)
        guest.asked = True
        self.rest(guest)
        if guest.peer is not None:
            self._charge(guest.peer, 1)

    def keep(self, guest: Guest) -> None:
        """Let a connection, whose request is about to be answered, keep its place until `rest`."""
        self._waiting.remove(guest)
        if guest.peer is not None:
            guest.peer.waiting.remove(guest)

    def rest(self, guest: Guest) -> None:
        """Take note that a connection waits again, for a request, or until its peer may ask again."""
        if guest.there:
            self._wait(guest)

    def patience(self, guest: Guest) -> float:
        """Say how many seconds a connection has to wait before it is heard again."""
        return 0.0 if guest.peer is None else self._charge(guest.peer, 0)

    def _wait(self, guest: Guest) -> None:
        self._waiting.add(guest)
        if guest.peer is not None:
            guest.peer.waiting.add(guest)

    def _count(self, peer: _Peer, change: int) -> None:
        """Count the connections of a peer."""
        if peer.connections > FEW:
            alike = self._many[peer.connections]
            del alike[peer]
            if not alike:
                del self._many[peer.connections]
        peer.connections += change
        if peer.connections > FEW:
            self._many.setdefault(peer.connections, {})[peer] = None

    def _spared(self) -> Guest | None:
        """Find the connection that can be spared first."""
        for known in (False, True):
            for number in sorted(self._many, reverse=True):
                for peer in self._many[number]:
                    if (guest := peer.waiting.first(known=known)) is not None:
                        return guest
            if (guest := self._waiting.first(known=known)) is not None:
                return guest
        return None

    def _spare(self, guest: Guest | None, why: Full) -> bool:
        if guest is None:
            return False
        self.turned_away[why] += 1
        self.leave(guest)
        guest.drop()
        return True

    def _turn_away(self, why: Full) -> bool:
        self.turned_away[why] += 1
        return False

    def _charge(self, peer: _Peer, cost: float) -> float:
        """Take something of a peer's budget; return by how many seconds it is overdrawn."""
        rate = self._bounds.rate_per_peer
        if not rate:
            return 0.0
        now = self._clock()
        # A second's worth may be saved.
        peer.debt = max(peer.debt - (now - peer.at) * rate, -rate) + cost
        peer.at = now
        return max(peer.debt, 0.0) / rate

    def _peer(self, address: str) -> _Peer:
        peer = self._peers.get(address)
        if peer is None:
            if len(self._peers) >= self._sweep_at:
                self._sweep()
            peer = self._peers[address] = _Peer(-float(self._bounds.rate_per_peer), self._clock())
        return peer

    def _sweep(self) -> None:
        """Forget the peers that have neither a connection nor a debt."""
        self._peers = {
            address: peer
            for address, peer in self._peers.items()
            if peer.connections or self._charge(peer, 0) or peer.debt > -self._bounds.rate_per_peer
        }
        self._sweep_at = 2 * len(self._peers) + _SWEEP


def peer_address(host: str) -> str:
    """Return what an address counts as: an IPv6 network of 64 bits is one peer, as a subscriber has no less.

    An IPv4 address that was mapped into IPv6 is that address.
    """
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))
