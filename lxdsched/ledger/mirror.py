"""Keeps this process's picture like what Redis has, as its answers tell, and knows what our own views show of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lxdsched.ledger import records
from lxdsched.ledger.picture import Picture
from lxdsched.ledger.records import Entry, HostState, RecordError, Reply
from lxdsched.model import Instance, Reservation
from lxdsched.quoting import quoted

MOST_ODD = 1000
"""Records that cannot be read which are remembered, so that each is complained of once."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a host listed last, and when it was asked for that."""

    now: Mapping[str, Instance]
    asked_at: float


class Mirror:
    """Works the script's answers into a picture.

    `epoch` and `version` are what is known of Redis as a whole, to be sent with every call.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, picture: Picture) -> None:
        self._clock = clock
        self._picture = picture
        self._looks: dict[str, _Look] = {}
        self._versions: dict[str, int] = {}
        self._odd: set[str] = set()  # of which it was said that they cannot be read
        self.epoch = ""
        self.version = 0

    def forget(self) -> None:
        """Take nothing for known that Redis has said: it may be another one by now. The picture stays."""
        self._versions.clear()
        self._odd.clear()
        self.epoch = ""
        self.version = 0

    def version_of(self, host: str) -> int:
        """Say which version of a host the picture is like."""
        return self._versions.get(host, 0)

    def apply(self, reply: Reply) -> None:
        """Make the hosts that have changed be as they are in Redis."""
        for state in reply.hosts:
            if state.version >= self.version_of(state.host):
                self._apply(state, reply.time)
        self.epoch = reply.epoch
        self.version = max(self.version, reply.version)

    def replace(self, reply: Reply) -> None:
        """Make everything be as it is in Redis, of which this answer tells all."""
        for host in set(self._picture.hosts()) - {state.host for state in reply.hosts}:
            for each in self._picture.on(host):
                self._picture.drop(each.id)
        self.apply(reply)

    def look(self, host: str, now: Mapping[str, Instance], asked_at: float) -> None:
        """Take note of what a host lists."""
        self._looks[host] = _Look(now, asked_at)
        settled = {each.id for each in self._picture.settled(host)}
        for each in self._picture.on(host):
            if each.instance is not None and each.id not in settled:
                self._settle_if_shown(each, each.instance)

    def _apply(self, state: HostState, time: int) -> None:
        self._versions[state.host] = state.version
        there = [entry.id for entry in state.entries]
        for gone in {each.id for each in self._picture.on(state.host)} - set(there):
            self._picture.drop(gone)
        for entry in state.entries:
            known = self._picture.get(entry.id) or self._take_in(entry, state.host, time)
            if known is not None and entry.label is not None:
                self._mark(known, entry.label)
            elif known is not None and self._picture.marked_at(known.id) is not None:
                self._picture.unsettle(known.id)  # its instance was found to be an older one's
        self._picture.arrange(state.host, there)

    def _take_in(self, entry: Entry, host: str, time: int) -> Reservation | None:
        now = self._clock.seconds()
        try:
            made = records.read(entry, now, time)
            if made.host != host:
                raise RecordError(f"reservation {quoted(entry.id)} is listed on another host than its own")
        except RecordError as error:
            if entry.id not in self._odd:
                if len(self._odd) == MOST_ODD:
                    self._odd.clear()
                self._odd.add(entry.id)
                self._log.error("the shared ledger holds what is not ours: {error}", error=str(error))
            return None
        if made.expires_at <= now:
            return None
        self._picture.add(made)
        return made

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
