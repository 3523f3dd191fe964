"""A ledger that several daemons share: reservations live in Redis, and each daemon has a picture of them.

Whatever claims or takes over is one call of one script (`ledger.lua`), which checks by what Redis knows; every answer
brings the picture up to date. Where Redis cannot be had, the daemon goes on alone with its picture, and brings along
what it has claimed when it comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from random import Random
from uuid import uuid4

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from lxdsched.ledger import records
from lxdsched.ledger.book import Candidate, LedgerUnavailableError, Rank
from lxdsched.ledger.exchange import Argument, Exchange
from lxdsched.ledger.link import LinkError
from lxdsched.ledger.memory import MemoryLedger, promise
from lxdsched.ledger.picture import Hold, Picture
from lxdsched.ledger.presence import Link
from lxdsched.ledger.sight import news
from lxdsched.ledger.takeover import TakeOver
from lxdsched.model import Claims, Demand, Instance, Reservation
from lxdsched.repeats import RequestKey

MOST_EXACT = 4
"""How often a demand is ranked anew for the best host of all, before any that has room will do."""
MOST_ROUNDS = 12
"""How often a demand is ranked anew because others claimed what was chosen, before it is refused."""


class RedisLedger:
    """Shares reservations of `life` seconds with the other replicas.

    A request waits for Redis for `patience` seconds at most; without Redis, it is answered from what this process
    knows, or not at all (`refuse`). `by` names this replica, for people; `link` makes what reaches Redis, given what to
    call when it is lost.
    """

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
        self._picture = Picture(clock)
        self._alone = MemoryLedger(clock, life, self._picture)
        self._exchange = Exchange(clock, self._picture, link, life=life, prefix=prefix, by=by, random=random)
        self._presence = self._exchange.presence
        self._taking_over = TakeOver(clock, self._picture, self._exchange)

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
        self._exchange.start()

    async def stop(self) -> None:
        """Leave no timer and no connection behind."""
        await self._exchange.stop()
        self._picture.stop()

    # What is known here

    def watch(self, changed: Callable[[str], None]) -> None:
        """Have `changed` called with a host whenever what is claimed on it changes."""
        self._picture.watch(changed)

    def claims(self, host: str) -> Claims:
        """Say what is claimed on a host now and not seen there, as far as this process knows."""
        return self._picture.claims(host)

    def find(self, key: RequestKey) -> Reservation | None:
        """Return the living reservation that was made under this key, as far as this process knows."""
        return self._picture.find(key)

    # What is asked of Redis

    async def refresh(self) -> None:
        """Hear what others have claimed; returns, at the latest, when that has taken too long."""
        began = self._clock.seconds()
        if await self._presence.here(self._patience / 2):
            await self._exchange.synchronise(self._left(began))

    async def reserve(self, demand: Demand, rank: Rank) -> Reservation | None:
        """Claim the demand on the first host of `rank()` on which it fits beside all that is claimed there."""
        began = self._clock.seconds()
        fresh, moved, full = False, False, None
        for number in count():
            if (known := self._picture.find(demand.key)) is not None:
                return known
            here = await self._presence.here(self._left(began) - self._patience / 2)
            self._check_usable()
            if not here:
                return await self._alone.reserve(demand, rank)
            candidates = rank()
            left = self._left(began)
            # A round that was cut short would take a link for dead that is only slow.
            takes = max(2 * self._exchange.pace, self._patience / 4)
            if candidates == full or number == MOST_ROUNDS or (number and left < takes and not moved):
                return None
            if not candidates:
                if fresh:
                    return None
                fresh = await self._exchange.synchronise(left)
                continue
            likely = self._first_with_room(demand, candidates)
            # To be sent away for the best host, there must be time for another round.
            best = likely == 0 and number < MOST_EXACT and left - self._exchange.pace >= takes
            try:
                made = await self._claim(demand, candidates, likely, max(left, self._patience / 4), exact=best)
            except LinkError:
                continue
            if made is not None:
                return made
            fresh, moved, full = True, best, None if best else candidates
        return None

    async def release(self, reservation_id: str) -> bool:
        """Give a reservation back. False when there is none. Raises LedgerUnavailableError."""
        began = self._clock.seconds()
        here = await self._presence.here(self._patience / 2)
        known = self._picture.get(reservation_id)
        until = self._clock.seconds() + self._life if known is None else known.expires_at
        if here:
            try:
                return await self._exchange.give_back(
                    reservation_id, until, self._left(began), certain=known is not None
                )
            except LinkError:
                pass
        if not self._presence.present:
            self._check_usable()
        if known is None:
            return False
        self._exchange.remember_released(reservation_id, until)
        return self._picture.drop(reservation_id)

    async def reservations(self) -> Sequence[Reservation]:
        """List the living reservations, pending and seen, oldest first."""
        await self.refresh()
        return self._picture.all()

    def sight(
        self, host: str, now: Mapping[str, Instance], before: Mapping[str, Instance] | None, asked_at: float
    ) -> None:
        """Let the instances of a host take over its reservations."""
        self._exchange.mirror.look(host, now, asked_at)
        if not news(now, before):
            return
        if self._presence.present:
            self._taking_over.ask(host, now, before)
        else:
            self._alone.sight(host, now, before, asked_at)

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
        arguments: list[Argument] = [
            reservation_id,
            round(self._life * 1000),
            records.request(demand.key),
            int(exact),
            demand.resources.cpu,
            demand.resources.memory,
            records.kind(demand.pool),
            records.rest(demand, [each.host for each in candidates], self._exchange.by),
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
            reply = await self._exchange.call("reserve", *arguments, patience=patience)
        except (LinkError, CancelledError):
            # Nobody waits any more for what may yet be claimed. By its key it may be found, or have been: it stays.
            if demand.request_id is None:
                self._withdraw(reservation_id)
            raise
        finally:
            if hold is not None:
                self._picture.let_go(hold)
        return self._picture.get(reply.detail) if reply.outcome in {"made", "known"} else None

    def _withdraw(self, reservation_id: str) -> None:
        until = self._clock.seconds() + self._life
        self._exchange.remember_released(reservation_id, until)
        if self._presence.present:
            self._exchange.in_background(self._exchange.give_back(reservation_id, until))

    def _offer(self, candidate: Candidate) -> list[Argument]:
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

    def _left(self, began: float) -> float:
        return self._patience - (self._clock.seconds() - began)

    def _check_usable(self) -> None:
        if not self.usable:
            raise LedgerUnavailableError("reservations cannot be shared with the other replicas: Redis cannot be used")
