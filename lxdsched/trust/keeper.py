"""Keeps the daemon and the store of one mind.

The daemon decides by its memory alone, inside the handshake. The disk is read and written aside, one thing at a time:
every few seconds it is looked whether a person or another daemon has changed the store. What cannot be written is
known until the daemon ends, and tried again. A store that cannot be relied on changes nothing of what is known, and
hosts that are not known are not trusted as long as it is so.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from cryptography import x509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from lxdsched.alarm import alarm
from lxdsched.tls import fingerprint
from lxdsched.trust.aside import Aside
from lxdsched.trust.certificates import describe
from lxdsched.trust.directory import Busy, StoreError, Unreliable
from lxdsched.trust.file import Look, Stamp, TrustFile
from lxdsched.trust.memory import Memory
from lxdsched.trust.records import Known
from lxdsched.trust.trouble import Trouble

LOOK = 2.0
"""Seconds between two looks at the file."""
OFFERS = 10.0
"""Seconds between two times that offered certificates are written: a hostile host may show a new one each time."""
RETRY = 30.0
"""Seconds until a disk that did not take something is tried again."""
LOCKED = 0.25
"""Seconds until a lock is tried again that somebody holds."""
LONG = 10.0
"""Seconds after which a lock is held for long enough to say so."""
GRACE = 2.0
"""Seconds that the last of it may take to be written when the daemon ends."""


class Keeper:
    """Knows which certificates are trusted, from `start` to `stop`.

    `in_reactor` has the reactor call something, from another thread. `wall` tells the time of day in seconds since the
    epoch.
    """

    _log = Logger()

    def __init__(
        self,
        file: TrustFile,
        clock: IReactorTime,
        in_reactor: Callable[[Callable[[], object]], object],
        wall: Callable[[], float],
    ) -> None:
        self.file = file
        self.fault: str | None = f"{file.path} has not been read yet"
        self._clock = clock
        self._wall = wall
        self._aside = Aside(in_reactor)
        self._memory = Memory(self._changed)
        self._watchers: dict[str, Callable[[], None]] = {}
        self._stamp: Stamp | None = None
        self._timer: IDelayedCall | None = None
        self._round: Deferred[None] | None = None
        self._started = self._stopped = False
        self._offers_from = 0.0
        self._write_from = 0.0
        self._locked_since: float | None = None
        self._reading = Trouble(f"{file.path} can be read again")
        self._writing = Trouble(f"{file.path} can be written again")

    def start(self) -> None:
        """Make the directory where it is missing, read what is known, and begin to look. StoreError when unusable."""
        self.file.prepare()
        look = self.file.look(None)
        if isinstance(look, StoreError):
            raise look
        self._seen(look)
        self._offers_from = self._write_from = self._clock.seconds()
        self._started = True
        self._wake(LOOK)

    async def stop(self) -> None:
        """Write what is not written yet, if that can be done soon."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        flush = Deferred.fromCoroutine(self._flush())
        with alarm(self._clock, GRACE, flush.cancel):
            try:
                await flush
            except CancelledError:
                self._writing.complain(f"{self.file.path} was not written in time: what was new in it is forgotten")

    def watch(self, url: str, changed: Callable[[], None]) -> None:
        """Have `changed` called when another certificate than before is trusted, or none."""
        self._watchers[url] = changed

    def known(self, url: str) -> Known | None:
        """Return what is known of a host."""
        return self._memory.hosts.get(url)

    def meet(self, url: str, certificate: x509.Certificate) -> None:
        """Remember the certificate of a host that was met for the first time."""
        self._memory.meet(url, Known(fingerprint(certificate), self._now(), "first_use"))
        self._wake(0)

    def offer(self, url: str, certificate: x509.Certificate) -> None:
        """Remember what a known host shows instead of the certificate that is trusted."""
        if self._memory.offer(url, describe(certificate, self._now())):
            self._wake(0)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(int(self._wall()), UTC)

    def _changed(self, url: str) -> None:
        watcher = self._watchers.get(url)
        if watcher is None or not self._started:
            return
        known = self.known(url)
        if known is None:
            self._log.info(
                "host {host} is forgotten in {path}: the next certificate counts", host=url, path=self.file.path
            )
        else:
            self._log.info(
                "host {host} is trusted by {fingerprint} from now on, as {path} says",
                host=url,
                fingerprint=known.fingerprint,
                path=self.file.path,
            )
        watcher()

    def _wake(self, seconds: float) -> None:
        """Have the next round after so many seconds, if it does not come before that."""
        if self._stopped or self._round is not None:
            return  # a round that ends looks for itself what is next
        if self._timer is not None:
            if self._timer.getTime() <= self._clock.seconds() + seconds:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._round = Deferred.fromCoroutine(self._go_round())
        self._round.addErrback(lambda failure: self._log.failure("the store of trust broke", failure))
        self._round.addBoth(self._end)

    def _end(self, _result: None) -> None:
        self._round = None
        self._wake(min(LOOK, self._due_in()))

    def _due_in(self) -> float:
        """Return after how many seconds something is to be written."""
        now = self._clock.seconds()
        if self._memory.fresh:
            return max(self._write_from - now, 0)
        if self._memory.offers:
            return max(self._write_from - now, self._offers_from - now, 0)
        return LOOK

    async def _go_round(self) -> None:
        try:
            if self._due_in() <= 0:
                await self._write()
            elif (look := await self._aside.do(lambda: self.file.look(self._stamp))) is not None:
                self._seen(look)
        except Busy as busy:
            self._wait_for_lock(busy)
        except Unreliable as error:
            self._write_from = self._clock.seconds() + RETRY
            self._seen(error)
        except (StoreError, RuntimeError) as error:
            self._write_from = self._clock.seconds() + RETRY
            self._writing.complain(f"who is trusted cannot be remembered: {error}")
        except Exception:
            self._write_from = self._clock.seconds() + RETRY
            raise

    async def _write(self) -> None:
        news = self._memory.news()
        hosts = await self._aside.do(lambda: self.file.update(news.into))
        if news.offers:
            self._offers_from = self._clock.seconds() + OFFERS
        self._memory.written(news)
        self._locked_since = None
        self._stamp = None  # it is another file now, and even if it is gone by the next look
        self._writing.end()
        self._good()
        self._memory.adopt(hosts)

    async def _flush(self) -> None:
        if self._round is not None:
            await self._waited()
        while self._memory.fresh or self._memory.offers:
            try:
                await self._write()
            except Busy:
                await deferLater(self._clock, LOCKED)
            except (StoreError, RuntimeError) as error:
                self._writing.complain(f"who is trusted could not be remembered: {error}")
                return

    def _waited(self) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        round_ = self._round
        assert round_ is not None  # noqa: S101

        def ended(result: None) -> None:
            if not waiter.called:
                waiter.callback(result)

        round_.addCallback(ended)
        return waiter

    def _seen(self, look: Look | StoreError | None) -> None:
        if isinstance(look, StoreError):
            self.fault = str(look)
            self._stamp = None
            self._reading.complain(f"who is trusted cannot be read, and hosts that are not known are refused: {look}")
            return
        if look is None:
            return
        self._stamp = look.stamp
        if look.hosts is not None:
            self._good()
            self._memory.adopt(look.hosts)
        else:
            self.fault = None
            if self._memory.vanished():
                self._reading.complain(f"{self.file.path} is gone; it is written again from what is known")

    def _good(self) -> None:
        self.fault = None
        self._reading.end()

    def _wait_for_lock(self, busy: Busy) -> None:
        now = self._clock.seconds()
        self._write_from = now + LOCKED
        if self._locked_since is None:
            self._locked_since = now
        if now - self._locked_since >= LONG:
            self._writing.complain(f"who is trusted cannot be remembered: {busy}, for {LONG:g} seconds or more")
