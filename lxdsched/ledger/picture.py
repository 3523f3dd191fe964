"""The living reservations that one process knows of, and what they claim on each host."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lxdsched.model import NO_CLAIMS, Claims, Kind, Reservation, Resources
from lxdsched.repeats import RequestKey

_FEW = 1000
"""Ends of what was dropped before its time that are no burden."""
_TEXT = 64
"""Bytes of a text without what is in it, roughly."""


def weight(made: Reservation) -> int:
    """Say how many bytes the texts of a reservation take, for which there is no bound but somebody's word."""
    asked = made.demand
    texts = (made.id, made.host, made.instance_name, made.request_id, made.client, asked and asked.architecture)
    kind = asked and asked.pool
    more = (kind.resource_type, kind.image_alias) if kind else ()
    sizes = (_TEXT + len(text) * (1 if text.isascii() else 4) for text in (*texts, *more) if text)
    return 8 * len(made.alternates) + sum(sizes)


@dataclass(frozen=True, slots=True)
class Hold:
    """What a reservation of this id will claim on a host, should it be made."""

    id: str
    host: str
    resources: Resources
    pool: Kind | None


class Picture:
    """Keeps reservations until their time on `clock` is up.

    A reservation claims until it is settled: its instance is in our own view of the host. One that is only marked has
    been seen by another replica, and claims here as before.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._alive: dict[str, Reservation] = {}
        self._requests: dict[RequestKey, str] = {}
        self._hosts: dict[str, dict[str, None]] = {}  # the ids on each host, oldest first
        self._settled: set[str] = set()
        self._marked: dict[str, float] = {}
        self._tied: dict[str, dict[str, str]] = {}
        self._holds: dict[str, dict[str, Hold]] = {}
        self._claims: dict[str, Claims] = {}
        self._ends: list[tuple[float, str]] = []
        self._alarm: IDelayedCall | None = None
        self.weight = 0  # bytes of what differs in size from one reservation to another
        self._changed: Callable[[str], None] = lambda _host: None

    def watch(self, changed: Callable[[str], None]) -> None:
        """Have `changed` called with a host whenever what is claimed on it changes."""
        self._changed = changed

    # What is known

    def claims(self, host: str) -> Claims:
        """Say what is claimed on a host now."""
        self._expire()
        claims = self._claims.get(host)
        if claims is None:
            claims = self._count(host)
            if claims != NO_CLAIMS:
                self._claims[host] = claims
        return claims

    def get(self, reservation_id: str) -> Reservation | None:
        """Return a living reservation."""
        self._expire()
        return self._alive.get(reservation_id)

    def find(self, key: RequestKey | None) -> Reservation | None:
        """Return the living reservation that was made under this key."""
        self._expire()
        return None if key is None else self._alive.get(self._requests.get(key, ""))

    def all(self) -> Sequence[Reservation]:
        """List what lives, oldest first."""
        self._expire()
        return sorted(self._alive.values(), key=lambda each: each.created_at)

    def beside(self, known: Container[str]) -> Sequence[Reservation]:
        """List what lives and is not among these ids, oldest first."""
        self._expire()
        found = [made for each, made in self._alive.items() if each not in known]
        return sorted(found, key=lambda each: each.created_at)

    def on(self, host: str) -> Sequence[Reservation]:
        """List what lives on a host, oldest first."""
        self._expire()
        return [self._alive[each] for each in self._hosts.get(host, ())]

    def pending(self, host: str) -> Sequence[Reservation]:
        """List what waits on a host for its instance, oldest first."""
        return [each for each in self.on(host) if each.instance is None]

    def settled(self, host: str) -> Sequence[Reservation]:
        """List those of a host that claim nothing any more."""
        return [each for each in self.on(host) if each.id in self._settled]

    def tied(self, host: str) -> Mapping[str, str]:
        """Say which instances of a host, by label, have taken over which living reservation."""
        return self._tied.get(host, {})

    def count(self) -> int:
        """Say how many live."""
        self._expire()
        return len(self._alive)

    def hosts(self) -> Iterable[str]:
        """Name the hosts on which something lives."""
        return list(self._hosts)

    # What happens

    def add(self, made: Reservation) -> None:
        """Take in a reservation that claims; from now on instead of what was held for it."""
        held = self._unhold(made.host, made.id)
        self._alive[made.id] = made
        self.weight += weight(made)
        self._hosts.setdefault(made.host, {})[made.id] = None
        if made.key is not None:
            self._requests.setdefault(made.key, made.id)
        heapq.heappush(self._ends, (made.expires_at, made.id))
        if held is None or (held.resources, held.pool) != (made.resources, made.pool):
            self._touch(made.host)
        self._set_alarm()

    def drop(self, reservation_id: str) -> bool:
        """Forget a reservation. False when there is none."""
        self._expire()
        if reservation_id not in self._alive:
            return False
        self._forget(reservation_id)
        if len(self._ends) > 2 * len(self._alive) + _FEW:
            self._ends = [(each.expires_at, each.id) for each in self._alive.values()]
            heapq.heapify(self._ends)
        self._set_alarm()
        return True

    def settle(self, reservation_id: str, label: str) -> None:
        """Have the instance of this label, which our view shows, take a reservation over: it claims no more."""
        self._tie(reservation_id, label)
        if reservation_id not in self._settled:
            self._settled.add(reservation_id)
            self._touch(self._alive[reservation_id].host)

    def unsettle(self, reservation_id: str) -> None:
        """Take back that a reservation was taken over."""
        taken = self._alive[reservation_id]
        self._untie(taken)
        self._marked.pop(reservation_id, None)
        self._alive[reservation_id] = replace(taken, instance=None)
        if reservation_id in self._settled:
            self._settled.discard(reservation_id)
            self._touch(taken.host)

    def mark(self, reservation_id: str, label: str) -> None:
        """Take note that all replicas know by now which instance takes a reservation over."""
        self._tie(reservation_id, label)
        self._marked.setdefault(reservation_id, self._clock.seconds())

    def marked_at(self, reservation_id: str) -> float | None:
        """Say when it was learnt that a reservation is marked."""
        return self._marked.get(reservation_id)

    def arrange(self, host: str, order: Iterable[str]) -> None:
        """Put the reservations of a host in this order, oldest first."""
        ids = self._hosts.get(host)
        if ids is not None:
            self._hosts[host] = {each: None for each in order if each in ids} | ids

    def hold(self, hold: Hold) -> None:
        """Claim for the time being."""
        self._holds.setdefault(hold.host, {})[hold.id] = hold
        self._touch(hold.host)

    def let_go(self, hold: Hold) -> None:
        """Claim it no more, unless it has become a reservation."""
        if self._unhold(hold.host, hold.id) is not None:
            self._touch(hold.host)

    def _unhold(self, host: str, reservation_id: str) -> Hold | None:
        held = self._holds.get(host, {})
        hold = held.pop(reservation_id, None)
        if hold is not None and not held:
            del self._holds[host]
        return hold

    def stop(self) -> None:
        """Wake up no more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _count(self, host: str) -> Claims:
        claiming = [self._alive[each] for each in self._hosts.get(host, ()) if each not in self._settled]
        every: list[Reservation | Hold] = [*claiming, *self._holds.get(host, {}).values()]
        resources = Resources(sum(each.resources.cpu for each in every), sum(each.resources.memory for each in every))
        return Claims(resources, tuple(each.pool for each in every if each.pool is not None))

    def _touch(self, host: str) -> None:
        self._claims.pop(host, None)
        self._changed(host)

    def _tie(self, reservation_id: str, label: str) -> None:
        before = self._alive[reservation_id]
        if before.instance != label:
            self._untie(before)
            self._alive[reservation_id] = replace(before, instance=label)
        self._tied.setdefault(before.host, {})[label] = reservation_id

    def _untie(self, taken: Reservation) -> None:
        tied = self._tied.get(taken.host, {})
        if taken.instance is not None and tied.get(taken.instance) == taken.id:
            del tied[taken.instance]
            if not tied:
                del self._tied[taken.host]

    def _expire(self) -> None:
        now = self._clock.seconds()
        while self._ends and (self._ends[0][0] <= now or self._ends[0][1] not in self._alive):
            _, reservation_id = heapq.heappop(self._ends)
            if reservation_id in self._alive:
                self._forget(reservation_id)

    def _forget(self, reservation_id: str) -> None:
        gone = self._alive.pop(reservation_id)
        self.weight -= weight(gone)
        if gone.key is not None and self._requests.get(gone.key) == reservation_id:
            del self._requests[gone.key]
        ids = self._hosts[gone.host]
        del ids[reservation_id]
        if not ids:
            del self._hosts[gone.host]
        self._marked.pop(reservation_id, None)
        self._untie(gone)
        if reservation_id in self._settled:
            self._settled.discard(reservation_id)
        else:
            self._touch(gone.host)

    def _set_alarm(self) -> None:
        """Wake up when the first reservation's time is up, and never when there is none."""
        self._expire()
        if not self._ends:
            self.stop()
            return
        due = self._ends[0][0]
        if self._alarm is not None and self._alarm.getTime() > due:
            self.stop()
        if self._alarm is None:
            self._alarm = self._clock.callLater(due - self._clock.seconds(), self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self._set_alarm()
