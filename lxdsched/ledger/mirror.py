"""Keeps this process's picture like what Redis has, as its answers tell, and knows what our own views show of it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lxdsched.ledger import records
from lxdsched.ledger.picture import Picture, weight
from lxdsched.ledger.records import Entry, HostState, RecordError, Reply
from lxdsched.ledger.strange import Strangers
from lxdsched.model import Instance, Reservation
from lxdsched.quoting import quoted

MOST_ALIVE = 100_000
"""Reservations that are known at once."""
MOST_OURS = 25_000
"""Reservations beside them, where those are for our own callers."""
MOST_HELD = 192 * 1024**2
"""Bytes of their texts. Before a reservation is not counted, it loses its alternates."""
MOST_HOSTS = 10_000
"""Hosts whose versions are known though nothing is claimed there and nobody here looks at them."""
MOST_NAMES = 10_000
"""Names of hosts that are kept once for all alternates; those of others are left out."""
LONGEST = 4
"""How often our own reservations' life goes into that of another replica's, at most, beside SLACK."""
SLACK = 86400.0
"""Seconds by which a reservation may live longer than that."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a host listed last, and when it was asked for that."""

    now: Mapping[str, Instance]
    asked_at: float


class Mirror:
    """Works the script's answers into a picture.

    `epoch` and `version` are what is known of Redis as a whole, to be sent with every call. Our own reservations live
    for `life` seconds.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, picture: Picture, life: float) -> None:
        self._clock = clock
        self._picture = picture
        self._longest = LONGEST * life + SLACK
        self._looks: dict[str, _Look] = {}
        self._versions: dict[str, int] = {}
        self._most_versions = MOST_HOSTS
        self._names: dict[str, str] = {}
        self._strangers = Strangers(clock)
        self._full = False
        self.epoch = ""
        self.version = 0

    def forget(self) -> None:
        """Take nothing for known that Redis has said: it may be another one by now. The picture stays."""
        self._versions.clear()
        self._names.clear()
        self._strangers.forget()
        self.epoch = ""
        self.version = 0

    def version_of(self, host: str) -> int:
        """Say which version of a host the picture is like."""
        return self._versions.get(host, 0)

    def apply(self, reply: Reply, brought: Container[str] | None = None) -> None:
        """Make the hosts that have changed be as they are in Redis.

        What is not in Redis is dropped: all of it, or what was `brought` there.
        """
        ours = reply.detail if reply.outcome in {"made", "known"} else None
        for state in reply.hosts:
            if state.version >= self.version_of(state.host):
                self._apply(state, reply.time, ours, brought)
        self.epoch = reply.epoch
        self.version = max(self.version, reply.version)
        self._strangers.sum_up()
        if len(self._versions) > self._most_versions:
            self._forget_idle_hosts()

    def drop(self, host: str, brought: Container[str]) -> None:
        """Drop what was brought to Redis, which knows nothing of this host."""
        for each in self._picture.on(host):
            if each.id in brought:
                self._picture.drop(each.id)

    def look(self, host: str, now: Mapping[str, Instance], asked_at: float) -> None:
        """Take note of what a host lists."""
        self._looks[host] = _Look(now, asked_at)
        settled = {each.id for each in self._picture.settled(host)}
        for each in self._picture.on(host):
            if each.instance is not None and each.id not in settled:
                self._settle_if_shown(each, each.instance)

    def _forget_idle_hosts(self) -> None:
        kept = {*self._picture.hosts(), *self._looks}
        self._versions = {host: version for host, version in self._versions.items() if host in kept}
        self._most_versions = len(self._versions) + MOST_HOSTS

    def _apply(self, state: HostState, time: int, ours: str | None, brought: Container[str] | None) -> None:
        self._versions[state.host] = state.version
        if state.more:
            self._strangers.complain(f"{state.more} reservations too many on {quoted(state.host)}")
        there = [entry.id for entry in state.entries]
        for gone in {each.id for each in self._picture.on(state.host)} - set(there):
            if brought is None or gone in brought:
                self._picture.drop(gone)
        for entry in state.entries:
            known = self._picture.get(entry.id) or self._take_in(entry, state.host, time, ours)
            if known is not None and entry.label is not None:
                self._mark(known, entry.label)
            elif known is not None and self._picture.marked_at(known.id) is not None:
                self._picture.unsettle(known.id)  # its instance was found to be an older one's
        self._picture.arrange(state.host, there)

    def _take_in(self, entry: Entry, host: str, time: int, ours: str | None) -> Reservation | None:
        if self._strangers.knows(entry, host):
            return None
        now = self._clock.seconds()
        try:
            made = records.read(entry, now, time)
            if made.host != host:
                raise RecordError(f"reservation {quoted(entry.id)} is listed on another host than its own")
            if made.expires_at - now > self._longest:
                raise RecordError(
                    f"reservation {quoted(entry.id)} ends in {made.expires_at - now:.0f} s, later than any"
                )
        except RecordError as error:
            self._strangers.found(entry, host, str(error))
            return None
        if made.expires_at <= now:
            return None
        fitting = self._fitting(made)
        if fitting is None and (entry.id != ours or self._picture.count() >= MOST_ALIVE + MOST_OURS):
            self._say_full()
            return None
        made = fitting or replace(made, alternates=())
        self._picture.add(made)
        return made

    def _fitting(self, made: Reservation) -> Reservation | None:
        """Make a reservation take no more memory than there is for it; None where there is none."""
        alive, held = self._picture.count(), self._picture.weight
        if alive <= MOST_ALIVE // 2 and held <= MOST_HELD // 2:
            self._full = False
        if alive >= MOST_ALIVE:
            return None
        if len(self._names) < MOST_NAMES and not self._names.keys() >= set(made.alternates):
            self._learn_names(made.alternates)
        made = replace(made, alternates=tuple(filter(None, map(self._names.get, made.alternates))))
        if held + weight(made) > MOST_HELD:
            made = replace(made, alternates=())
        return made if held + weight(made) <= MOST_HELD else None

    def _learn_names(self, hosts: Iterable[str]) -> None:
        for host in hosts:
            if len(self._names) < MOST_NAMES and len(host) <= records.MOST_TEXT:
                self._names.setdefault(host, host)

    def _say_full(self) -> None:
        if not self._full:
            self._full = True
            self._log.error(
                "the shared ledger holds more than {number} reservations, or more than {size} MiB of them: what is "
                "beyond that is not counted here, and not said again before there is half of it",
                number=MOST_ALIVE,
                size=MOST_HELD // 1024**2,
            )

    def _mark(self, known: Reservation, label: str) -> None:
        if known.instance is not None and known.instance != label:
            self._picture.unsettle(known.id)  # another replica was faster to see another instance
        elif self._picture.marked_at(known.id) is not None:
            return
        self._picture.mark(known.id, label)
        self._settle_if_shown(known, label)

    def _settle_if_shown(self, marked: Reservation, label: str) -> None:
        """Count a reservation no more once our own view of the host shows what has become of its instance.

        That it lists an instance of this name is enough where that one is no smaller: it may be an earlier one of the
        same name. What it lists, or lists no more, on a question that was put after the mark was known, is.
        """
        look = self._looks.get(marked.host)
        if look is None:
            return
        shown, learnt = look.now.get(label), self._picture.marked_at(marked.id)
        if (shown is not None and shown.resources.covers(marked.resources)) or (
            learnt is not None and look.asked_at > learnt
        ):
            self._picture.settle(marked.id, label)
