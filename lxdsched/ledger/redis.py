"""A ledger that several daemons share: reservations live in Redis, and each daemon has a picture of them.

Whatever claims or takes over is one call of one script (`ledger.lua`), which checks by what Redis knows; every answer
brings the picture up to date. Where Redis cannot be had, the daemon goes on alone with its picture, and brings along
what it has claimed when it comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from random import Random
from typing import Any
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lxdsched.ledger import records
from lxdsched.ledger.book import Candidate, LedgerUnavailableError, Rank
from lxdsched.ledger.link import LinkError
from lxdsched.ledger.memory import MemoryLedger, promise
from lxdsched.ledger.mirror import Mirror
from lxdsched.ledger.picture import Hold, Picture
from lxdsched.ledger.presence import Link, Presence
from lxdsched.ledger.records import RecordError, Reply
from lxdsched.ledger.sight import matches, news
from lxdsched.model import Claims, Demand, Instance, Reservation

MOST_EXACT = 4
"""How often a demand is ranked anew for the best host of all, before any that has room will do."""
MOST_ROUNDS = 12
"""How often a demand is ranked anew because others claimed what was chosen, before it is refused."""
MOST_MATCHES = 4
"""How often instances are matched anew because others were faster, before the match is insisted on."""
MOST_BROUGHT = 200
"""How many reservations are brought along at once by a replica that joins."""
BEAT = 0.5
"""Seconds between two looks at Redis, when nothing else is asked of it."""
_INSIST = -1
_NO_NEWS = 1 << 53
"""A version that will never be: whoever knows it wants to hear of nothing."""

_Argument = str | bytes | int


def script() -> bytes:
    """Return the script that a link has to run."""
    return files("lxdsched.ledger").joinpath("ledger.lua").read_bytes()


@dataclass(frozen=True, slots=True)
class _Question:
    """What a host listed now and in the view before: whose are the instances that have come?"""

    now: Mapping[str, Instance]
    before: Mapping[str, Instance] | None
    asked_at: float


class RedisLedger:
    """Shares reservations of `life` seconds with the other replicas.

    A request waits for Redis for `patience` seconds at most; without it, it is answered from what this process knows,
    or not at all (`refuse`). `by` names this replica, for people; `link` makes what reaches Redis, given what to call
    when it is lost.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        life: float,
        link: Callable[[Callable[[str], None]], Link],
        *,
        prefix: str,
        patience: float,
        refuse: bool,
        by: str,
        random: Random,
    ) -> None:
        self._clock = clock
        self._life = life
        self._patience = patience
        self._refuse = refuse
        self._by = by
        self._keys = records.keys(prefix)
        self._picture = Picture(clock)
        self._mirror = Mirror(clock, self._picture)
        self._alone = MemoryLedger(clock, life, self._picture)
        self._released: dict[str, float] = {}  # until when: should Redis lose what it knows, it is told again
        self._questions: dict[str, list[_Question]] = {}
        self._asked_at = 0.0
        self._link = link(self._lost)
        self._presence = Presence(clock, self._link, self._join, random)
        self._beat = LoopingCall(self._look_around)
        self._beat.clock = clock

    @property
    def degraded(self) -> bool:
        """Whether what other replicas claim is not known at the moment."""
        return not self._presence.sure

    @property
    def settled(self) -> bool:
        """Whether it is known yet if Redis can be had."""
        return self._presence.settled

    @property
    def usable(self) -> bool:
        """Whether anything may be claimed at the moment, shared or not."""
        return self._presence.sure or not self._refuse

    def start(self) -> None:
        """Begin to look for Redis."""
        self._presence.start()
        self._beat.start(BEAT, now=False)

    async def stop(self) -> None:
        """Leave no timer and no connection behind."""
        if self._beat.running:
            self._beat.stop()
        await self._presence.stop()
        self._picture.stop()

    # What is known here

    def watch(self, changed: Callable[[str], None]) -> None:
        """Have `changed` called with a host whenever what is claimed on it changes."""
        self._picture.watch(changed)

    def claims(self, host: str) -> Claims:
        """Say what is claimed on a host now and not seen there, as far as this process knows."""
        return self._picture.claims(host)

    def find(self, request_id: str) -> Reservation | None:
        """Return the living reservation that was made under this key, as far as this process knows."""
        return self._picture.find(request_id)

    # What is asked of Redis

    async def refresh(self) -> None:
        """Hear what others have claimed; returns, at the latest, when that has taken too long."""
        if await self._presence.here(self._patience / 2):
            await self._synchronise(self._patience / 2)

    async def reserve(self, demand: Demand, rank: Rank) -> Reservation | None:
        """Claim the demand on the first host of `rank()` on which it fits beside all that is claimed there."""
        began = self._clock.seconds()
        fresh, full = False, None
        for number in count():
            if (known := self._picture.find(demand.request_id)) is not None:
                return known
            here = await self._presence.here(self._patience / 2 - (self._clock.seconds() - began))
            self._check_usable()
            if not here:
                return await self._alone.reserve(demand, rank)
            left = self._patience - (self._clock.seconds() - began)
            # A round that begins late could only be cut short, and a link that is in order be taken for dead.
            late = left < self._patience / 2
            candidates = rank()
            if not candidates:
                if fresh or late:
                    return None
                fresh = await self._synchronise(left)
                continue
            if candidates == full or (number and late) or number == MOST_ROUNDS:
                return None
            likely = self._first_with_room(demand, candidates)
            best = likely == 0 and number < MOST_EXACT and left > self._patience * 3 / 4
            try:
                made = await self._claim(demand, candidates, likely, left, exact=best)
            except LinkError:
                continue
            if made is not None:
                return made
            fresh, full = True, None if best else candidates
        return None

    async def release(self, reservation_id: str) -> bool:
        """Give a reservation back. False when there is none. Raises LedgerUnavailableError."""
        if self._picture.get(reservation_id) is None:
            await self.refresh()
        known = self._picture.get(reservation_id)
        if known is None:
            return False
        if self._presence.present:
            try:
                return await self._give_back(known.id, known.expires_at)
            except LinkError:
                pass
        if not self._presence.present:
            self._check_usable()
        self._remember_released(known.id, known.expires_at)
        return self._picture.drop(known.id)

    async def reservations(self) -> Sequence[Reservation]:
        """List the living reservations, pending and seen, oldest first."""
        await self.refresh()
        return self._picture.all()

    def sight(
        self, host: str, now: Mapping[str, Instance], before: Mapping[str, Instance] | None, asked_at: float
    ) -> None:
        """Let the instances of a host take over its reservations; here at once, and for all as soon as they hear it.

        Redis is asked even where we know of no reservation: who made one may have been faster than the news of it.
        """
        self._mirror.look(host, now, asked_at)
        if not news(now, before):
            return
        if not self._presence.present:
            self._alone.sight(host, now, before, asked_at)
            return
        question = _Question(now, before, self._clock.seconds())
        if host in self._questions:
            self._questions[host].append(question)
        else:
            self._questions[host] = [question]
            self._in_background(self._take_over(host))

    def _first_with_room(self, demand: Demand, candidates: Sequence[Candidate]) -> int | None:
        rooms = (each.room - self._picture.claims(each.host).resources for each in candidates)
        return next((number for number, room in enumerate(rooms) if room.covers(demand.resources)), None)

    async def _claim(
        self, demand: Demand, candidates: Sequence[Candidate], likely: int | None, patience: float, *, exact: bool
    ) -> Reservation | None:
        """Have the script claim; None where others were faster. Raises LinkError.

        `likely` is the candidate that will probably be chosen.
        """
        reservation_id = uuid4().hex
        arguments: list[_Argument] = [
            reservation_id,
            round(self._life * 1000),
            demand.request_id or "",
            int(exact),
            demand.resources.cpu,
            demand.resources.memory,
            records.kind(demand.pool),
            records.rest(demand, [each.host for each in candidates], self._by),
        ]
        asked = candidates[:1] if exact else candidates
        arguments.append(len(asked))
        for each in asked:
            arguments += self._offer(each)
        # Until it is answered, what it will claim is claimed here: those that come next choose beside it.
        hold = None
        if likely is not None:
            host = candidates[likely].host
            pool = promise(demand, candidates[likely], self._picture.claims(host))
            self._picture.hold(hold := Hold(reservation_id, host, demand.resources, pool))
        try:
            reply = await self._call(patience, "reserve", *arguments)
        except (LinkError, CancelledError):
            # Nobody waits any more for what may yet be claimed.
            until = self._clock.seconds() + self._life
            self._remember_released(reservation_id, until)
            if self._presence.present:
                self._in_background(self._give_back(reservation_id, until))
            raise
        finally:
            if hold is not None:
                self._picture.let_go(hold)
        return self._picture.get(reply.detail) if reply.outcome in {"made", "known"} else None

    def _offer(self, candidate: Candidate) -> list[_Argument]:
        """Write a host as the script judges it: by its room, and by what this replica counts there itself."""
        claims = self._picture.claims(candidate.host)
        shown = [(each.id, each.instance or "") for each in self._picture.settled(candidate.host)]
        return [
            candidate.host,
            candidate.room.cpu,
            candidate.room.memory,
            candidate.ready,
            claims.resources.cpu,
            claims.resources.memory,
            len(claims.pools),
            len(shown),
            *(part for pair in shown for part in pair),
        ]

    def _check_usable(self) -> None:
        if not self.usable:
            raise LedgerUnavailableError("reservations cannot be shared with the other replicas: Redis cannot be used")

    async def _take_over(self, host: str) -> None:
        questions = self._questions[host]
        try:
            while questions:
                await self._match(host, questions[0])
                questions.pop(0)
        finally:
            del self._questions[host]

    async def _match(self, host: str, question: _Question) -> None:
        for number in count(1):
            # What we hear of only now may have been made after the instance.
            pending = [each for each in self._picture.pending(host) if each.created_at <= question.asked_at]
            pairs = matches(pending, question.now, question.before, self._picture.tied(host))
            for reservation_id, label in pairs.items():
                self._picture.settle(reservation_id, label)
            if not self._presence.present:
                return
            version = self._mirror.version_of(host) if number < MOST_MATCHES else _INSIST
            told = [part for pair in pairs.items() for part in pair]
            try:
                reply = await self._call(self._patience, "see", host, version, len(pairs), *told)
            except LinkError:
                return  # Redis hears of it when we are back
            if reply.outcome == "seen":
                return
            for reservation_id in pairs:
                if self._picture.get(reservation_id) is not None and self._picture.marked_at(reservation_id) is None:
                    self._picture.unsettle(reservation_id)

    async def _synchronise(self, patience: float) -> bool:
        try:
            await self._call(patience, "sync")
        except LinkError:
            return False
        return True

    def _look_around(self) -> None:
        if self._presence.present and self._clock.seconds() - self._asked_at >= BEAT:
            self._in_background(self._synchronise(self._patience))

    async def _call(self, patience: float, operation: str, *arguments: _Argument) -> Reply:
        """Run the script, and work in what it tells. Raises LinkError."""
        reply = await self._run(patience, operation, self._mirror.version, *arguments)
        self._mirror.apply(reply)
        return reply

    async def _run(self, patience: float, operation: str, version: int, *arguments: _Argument) -> Reply:
        self._asked_at = self._clock.seconds()
        said = await self._link.run(self._keys, [operation, self._mirror.epoch, version, *arguments], patience)
        try:
            reply = records.read_reply(said)
        except RecordError as error:
            self._abandon(str(error))
            raise LinkError(str(error)) from None
        if reply.outcome == "epoch":
            self._abandon("it has lost all that it held")
            raise LinkError("it has lost all that it held")
        return reply

    def _abandon(self, reason: str) -> None:
        self._link.close()
        self._lost(reason)

    def _lost(self, reason: str) -> None:
        self._presence.lost(reason)

    # Coming back

    async def _join(self) -> tuple[str, float]:
        """Bring along what this process knows, and take in what Redis has. Raises LinkError.

        Returns the epoch, and how many seconds ago that began, which is when Redis was empty.
        """
        self._mirror.forget()
        now = self._clock.seconds()
        gone = [(each, round((until - now) * 1000)) for each, until in self._released.items() if until > now]
        brought: set[str] = set()
        while True:
            now = self._clock.seconds()
            alive = [each for each in self._picture.all() if each.id not in brought]
            last = len(alive) <= MOST_BROUGHT and len(gone) <= MOST_BROUGHT
            some, others, gone = alive[:MOST_BROUGHT], gone[:MOST_BROUGHT], gone[MOST_BROUGHT:]
            brought |= {each.id for each in some}
            arguments: list[_Argument] = [uuid4().hex, len(others), *(part for pair in others for part in pair)]
            arguments.append(len(some))
            for each in some:
                arguments += records.brought(each, now, self._by)
            reply = await self._run(self._patience, "join", 0 if last else _NO_NEWS, *arguments)
            if last and all(each.id in brought for each in self._picture.all()):
                break
        self._mirror.replace(reply)
        return reply.epoch, (reply.time - int(reply.detail)) / 1000

    async def _give_back(self, reservation_id: str, until: float) -> bool:
        """Give back what would end by itself at a time; False where there is nothing. Raises LinkError."""
        self._remember_released(reservation_id, until)
        left = max(round((until - self._clock.seconds()) * 1000), 1)
        return (await self._call(self._patience, "release", 1, reservation_id, left)).outcome == "released"

    def _remember_released(self, reservation_id: str, until: float) -> None:
        self._released[reservation_id] = until
        now = self._clock.seconds()
        while (oldest := next(iter(self._released))) != reservation_id and self._released[oldest] <= now:
            del self._released[oldest]

    def _in_background(self, doing: Coroutine[Deferred[Any], Any, object]) -> None:
        def failed(failure: Failure) -> None:
            if failure.check(LinkError) is None:
                self._log.failure("what was to be told to Redis in the background has failed", failure)

        Deferred.fromCoroutine(doing).addErrback(failed)
