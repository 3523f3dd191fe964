"""Lets instances that have come take reservations over: here at once, and for all replicas by Redis.

Redis is asked even where we know of no reservation: who has made one may have been faster than the news of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from twisted.internet.interfaces import IReactorTime

from lxdsched.ledger.exchange import INSIST, Exchange
from lxdsched.ledger.link import LinkError
from lxdsched.ledger.picture import Picture
from lxdsched.ledger.sight import matches
from lxdsched.model import Instance

MOST_MATCHES = 4
"""How often instances are matched anew because others were faster, before the match is insisted on."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What a host listed now and in the view before: whose are the instances that have come?"""

    now: Mapping[str, Instance]
    before: Mapping[str, Instance] | None
    put_at: float


class TakeOver:
    """Answers one question of a host after the other."""

    def __init__(self, clock: IReactorTime, picture: Picture, exchange: Exchange) -> None:
        self._clock = clock
        self._picture = picture
        self._exchange = exchange
        self._questions: dict[str, list[_Question]] = {}

    def ask(self, host: str, now: Mapping[str, Instance], before: Mapping[str, Instance] | None) -> None:
        """Match what has come to count on a host, or to its runner."""
        question = _Question(now, before, self._clock.seconds())
        if host in self._questions:
            self._questions[host].append(question)
        else:
            self._questions[host] = [question]
            self._exchange.in_background(self._take_over(host))

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
            pending = [each for each in self._picture.pending(host) if each.created_at <= question.put_at]
            pairs = matches(pending, question.now, question.before, self._picture.tied(host))
            for reservation_id, label in pairs.items():
                self._picture.settle(reservation_id, label)
            if not self._exchange.presence.present:
                return
            version = self._exchange.mirror.version_of(host) if number < MOST_MATCHES else INSIST
            told = [part for pair in pairs.items() for part in pair]
            try:
                reply = await self._exchange.call("see", host, version, len(pairs), *told)
            except LinkError:
                return  # Redis hears of it when we are back
            for reservation_id in pairs:
                if self._picture.get(reservation_id) is not None and self._picture.marked_at(reservation_id) is None:
                    self._picture.unsettle(reservation_id)
            if reply.outcome == "seen":
                return
