"""Whether the shared ledger can be had: opens the link, joins, and does so again whenever it was lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any, Protocol

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from lxdsched.ledger.link import LinkError

OPENING = 1.5
"""Seconds for which one attempt to reach Redis may go on. Nobody waits for it."""
FIRST_PAUSE = 0.1
"""Seconds between the first two attempts; doubled each time."""
MOST_PAUSE = 1.0
"""Seconds between two attempts, at most."""
JOINING = 0.5
"""Seconds that to join takes, at most, with as many reservations as there are on a usual fleet."""
SETTLING = OPENING + MOST_PAUSE + JOINING
"""Seconds for which a Redis that has lost what it knew may not have heard yet what others know: all of them come back
to it in less."""
STEADY = 10.0
"""Seconds after which a link that is lost counts as one that was good: the next attempt is made at once."""


class Link(Protocol):
    """What reaches Redis. `server` tells one run of a server from another one, once the link is open."""

    server: str

    async def open(self, timeout: float) -> None:
        """Get ready to run the script, within so many seconds. Raises LinkError."""

    async def run(self, keys: Any, arguments: Any, timeout: float) -> Any:
        """Run the script once. Raises LinkError."""

    def close(self) -> None:
        """Drop the connection."""


class Presence:
    """Keeps a link open, and `join`s whenever it is.

    To join tells how many seconds ago this run of Redis was first joined. One that has just started, or has just become
    the primary, may have lost what it knew. All replicas come (back) to it at about the same time, and until they have,
    none can be sure to know what the others have claimed.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, link: Link, join: Callable[[], Awaitable[float]], random: Random) -> None:
        self._clock = clock
        self._link = link
        self._join = join
        self._random = random
        self._coming = True  # whether it is worth waiting
        self._away_since: float | None = None
        self._waiters: set[Deferred[None]] = set()
        self._gone: Deferred[None] | None = None
        self._keeping: Deferred[None] | None = None
        self._sure_at = 0.0
        self.present = False
        self.settled = False  # whether it is known if Redis can be had

    @property
    def sure(self) -> bool:
        """Whether what other replicas have claimed is known."""
        return self.present and self._clock.seconds() >= self._sure_at

    def start(self) -> None:
        """Begin to look for Redis."""
        self._keeping = Deferred.fromCoroutine(self._keep())
        self._keeping.addErrback(self._ended)

    async def stop(self) -> None:
        """Look for it no more, and drop the connection."""
        self.present = self._coming = False
        if self._keeping is not None:
            self._keeping.cancel()
        self._link.close()
        self._wake()

    async def here(self, patience: float) -> bool:
        """Tell whether the shared ledger can be had, waiting so many seconds if it is just about to be."""
        if self._coming and not self.present and patience > 0:
            waiter: Deferred[None] = Deferred()
            self._waiters.add(waiter)
            try:
                with suppress(defer.TimeoutError):
                    await waiter.addTimeout(patience, self._clock)
            finally:
                self._waiters.discard(waiter)
        return self.present

    def abandon(self, reason: str) -> None:
        """Give up a link that still stands, and look for Redis anew."""
        if self.present:
            self._away(
                reason
            )  # before all: whoever waits for an answer must not take the link for good when that fails
        self._link.close()
        self._look_anew()

    def lost(self, reason: str) -> None:
        """Take note that the link is gone."""
        if self.present:
            self._away(reason)
        self._look_anew()

    def _look_anew(self) -> None:
        if self._gone is not None:
            gone, self._gone = self._gone, None
            gone.callback(None)

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await self._link.open(OPENING)
                self._coming = True
                age = await self._join()
            except LinkError as error:
                self._link.close()
                self._away(str(error))
            except CancelledError:
                raise
            except Exception:  # whatever it is, it must not be the last attempt
                self._log.failure("what joins the others through Redis has failed")
                self._link.close()
                self._away("joining has failed, as the log says")
            else:
                began = self._clock.seconds()
                self._sure_at = began + SETTLING - age
                gone = self._gone = Deferred()
                self._arrived(began)
                await gone
                if self._clock.seconds() - began > STEADY:
                    pause = FIRST_PAUSE
                    continue
            await deferLater(self._clock, pause * self._random.uniform(0.5, 1.0))
            pause = min(2 * pause, MOST_PAUSE)

    def _arrived(self, now: float) -> None:
        self.present = self.settled = True
        if self._away_since is not None:
            self._log.info(
                "reservations are shared through Redis again, after {seconds} s",
                seconds=round(now - self._away_since, 3),
            )
            self._away_since = None
        else:
            self._log.info("reservations are shared through Redis")
        self._wake()

    def _away(self, reason: str) -> None:
        self.present = self._coming = False
        self.settled = True
        if self._away_since is None:
            self._away_since = self._clock.seconds()
            self._log.warn("reservations are not shared with other replicas for now: {reason}", reason=reason)
        else:
            self._log.debug("Redis still cannot be used: {reason}", reason=reason)
        self._wake()

    def _wake(self) -> None:
        for waiter in list(self._waiters):
            waiter.callback(None)

    def _ended(self, failure: Any) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("what looks for Redis has failed, and will not look again", failure)
