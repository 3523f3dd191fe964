"""Speaks to Redis by the ledger's one script: each call is one round trip, and brings the picture up to date."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from importlib.resources import files
from random import Random
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lxdsched.ledger import records
from lxdsched.ledger.link import LinkError
from lxdsched.ledger.mirror import Mirror
from lxdsched.ledger.picture import Picture
from lxdsched.ledger.presence import Link, Presence
from lxdsched.ledger.records import RecordError, Reply

MOST_BROUGHT = 100
"""How many reservations are brought along at once by a replica that joins."""
UNHURRIED = 1.0
"""Seconds that a call may take for which no request waits."""
BEAT = 0.5
"""Seconds between two looks at Redis, when nothing else is asked of it."""
INSIST = -1
"""A version of a host that is no version: it is not waited for to be known."""
MOST_PIECES = 1000
"""Answers in which the script tells of all that there is, at most."""
_NO_NEWS = 1 << 53
"""A version that will never be: whoever knows it wants to hear of nothing."""

Argument = str | bytes | int


def script() -> bytes:
    """Return the script that a link has to run."""
    return files("lxdsched.ledger").joinpath("ledger.lua").read_bytes()


class Exchange:
    """Calls the script, by a link that is kept open, and keeps a picture like what Redis has.

    `link` makes what reaches Redis, given what to call when it is lost; reservations of ours live for `life` seconds;
    `prefix` is what the keys begin with; `by` names this replica, for people. `pace` is how many seconds calls take
    lately.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        picture: Picture,
        link: Callable[[Callable[[str], None]], Link],
        *,
        life: float,
        prefix: str,
        by: str,
        random: Random,
    ) -> None:
        self._clock = clock
        self._picture = picture
        self._keys = records.keys(prefix)
        self._asked_at = 0.0
        self._released: dict[str, float] = {}  # until when: should Redis lose what it knows, it is told again
        self._link = link(self._lost)
        self._beat = LoopingCall(self._look_around)
        self._beat.clock = clock
        self.by = by
        self.pace = 0.0
        self.mirror = Mirror(clock, picture, life)
        self.presence = Presence(clock, self._link, self._join, random)

    def start(self) -> None:
        """Begin to look for Redis."""
        self.presence.start()
        self._beat.start(BEAT, now=False)

    async def stop(self) -> None:
        """Leave no timer and no connection behind."""
        if self._beat.running:
            self._beat.stop()
        await self.presence.stop()

    async def call(self, operation: str, *arguments: Argument, patience: float = UNHURRIED) -> Reply:
        """Run the script, and work in what it tells, within so many seconds. Raises LinkError."""
        reply = await self._run(operation, self.mirror.version, *arguments, patience=patience)
        self.mirror.apply(reply)
        return reply

    async def synchronise(self, patience: float = UNHURRIED) -> bool:
        """Hear what has changed; tell whether that was possible."""
        end = self._clock.seconds() + patience
        try:
            for _ in range(MOST_PIECES):
                reply = await self.call("sync", patience=end - self._clock.seconds())
                if reply.outcome != "more" or self._clock.seconds() >= end:
                    break
        except LinkError:
            return False
        return True

    async def give_back(
        self, reservation_id: str, until: float, patience: float = UNHURRIED, *, certain: bool = True
    ) -> bool:
        """Give back what would end by itself at a time; False where there is nothing. Raises LinkError.

        Where it is `certain` that there is such a reservation, or may be one later, it will not come back.
        """
        if certain:
            self.remember_released(reservation_id, until)
        left = max(round((until - self._clock.seconds()) * 1000), 1)
        reply = await self.call("release", 1, reservation_id, left, int(certain), patience=patience)
        return reply.outcome == "released"

    def remember_released(self, reservation_id: str, until: float) -> None:
        """Have Redis know that something was given back, whenever we join until then."""
        self._released[reservation_id] = until
        now = self._clock.seconds()
        while (oldest := next(iter(self._released))) != reservation_id and self._released[oldest] <= now:
            del self._released[oldest]

    def in_background(self, doing: Coroutine[Deferred[Any], Any, object]) -> None:
        """Have something done for which nobody waits. That Redis is lost meanwhile is not worth a word."""

        def failed(failure: Failure) -> None:
            if failure.check(LinkError) is None:
                self._log.failure("what was to be told to Redis in the background has failed", failure)

        Deferred.fromCoroutine(doing).addErrback(failed)

    def _lost(self, reason: str) -> None:
        self.presence.lost(reason)

    def _look_around(self) -> None:
        if self.presence.present and self._clock.seconds() - self._asked_at >= BEAT:
            self.in_background(self.synchronise())

    async def _run(self, operation: str, version: int, *arguments: Argument, patience: float = UNHURRIED) -> Reply:
        began = self._asked_at = self._clock.seconds()
        said = await self._link.run(self._keys, [operation, self.mirror.epoch, version, *arguments], max(patience, 0.0))
        took = self._clock.seconds() - began
        self.pace = max(took, self.pace + (took - self.pace) / 8)
        try:
            reply = records.read_reply(said)
        except RecordError as error:
            self.presence.abandon(str(error))
            raise LinkError(str(error)) from None
        if reply.outcome == "epoch":
            self.presence.abandon("it has lost all that it held")
            raise LinkError("it has lost all that it held")
        return reply

    async def _join(self) -> float:
        """Bring along what this process knows, and take in what Redis has. Raises LinkError.

        Returns how many seconds ago the first replica has joined this run of the server, or one that was empty.
        """
        self.mirror.forget()
        told: set[str] = set()
        brought: dict[str, str | None] = {}
        unheard = set(self._picture.hosts())
        epoch, heard, pieces = "", 0, 0
        while True:
            # What happens while we wait for an answer is told with the next call.
            now = self._clock.seconds()
            gone = [(each, until) for each, until in self._released.items() if until > now and each not in told]
            alive = self._picture.beside(brought)
            last = len(gone) <= MOST_BROUGHT and len(alive) <= MOST_BROUGHT
            gone, alive = gone[:MOST_BROUGHT], alive[:MOST_BROUGHT]
            told |= {each for each, _ in gone}
            brought |= {each.id: each.instance for each in alive}
            arguments: list[Argument] = [uuid4().hex, self._link.server, len(gone)]
            for each, until in gone:
                arguments += [each, round((until - now) * 1000), 1]
            arguments.append(len(alive))
            for living in alive:
                arguments += records.brought(living, now, self.by)
            reply = await self._run("join", heard if last else _NO_NEWS, *arguments)
            if epoch not in {"", reply.epoch}:
                raise LinkError("it has lost all that it held")
            epoch = reply.epoch
            if not last:
                continue
            self.mirror.apply(reply, brought)
            unheard -= {state.host for state in reply.hosts}
            for entry in (entry for state in reply.hosts for entry in state.entries):
                if self._picture.get(entry.id) is not None:
                    brought.setdefault(entry.id, None)
            heard, pieces = reply.version, pieces + 1
            if pieces == MOST_PIECES:
                raise LinkError("it does not come to an end with what it tells")
            now = self._clock.seconds()
            untold = any(until > now and each not in told for each, until in self._released.items())
            if reply.outcome != "more" and not untold and not self._picture.beside(brought):
                break
        for host in unheard:
            self.mirror.drop(host, brought)
        self._agree(brought)
        return (reply.time - reply.founded) / 1000

    def _agree(self, brought: Mapping[str, str | None]) -> None:
        """Have Redis and us agree on which instance has taken over what, after we have joined."""
        for each in self._picture.all():
            if each.instance is None or self._picture.marked_at(each.id) is not None:
                continue
            if each.instance == brought.get(each.id):
                # That instance has taken over another one. Alone, we could not know whose it was.
                self._picture.unsettle(each.id)
            else:
                self.in_background(self.call("see", each.host, INSIST, 1, each.id, each.instance))
