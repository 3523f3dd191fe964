"""One host: how it stands, and when it is asked again.

A host is *in the running* until a question fails. Once one has failed, no request waits for the host again: it is
probed in the background, at growing intervals, until it answers. So a dead host costs the requests of one moment one
deadline, and later ones nothing.

A host in the running is *live* while its stream of events is open: each event that may matter is followed by one
listing, and as long as there was none, a request asks nothing. Without the stream, each request asks for the listing.
All requests that wait share one question, and one that goes away leaves the question alone.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from lxdsched.fleet.client import HostClient, HostError
from lxdsched.fleet.contacts import Contacts
from lxdsched.fleet.events import Event
from lxdsched.fleet.hints import Hint, read_hint
from lxdsched.fleet.inquiry import Inquiry
from lxdsched.fleet.pace import Pace
from lxdsched.fleet.report import report
from lxdsched.fleet.settings import Counting, HostSettings, Patience
from lxdsched.fleet.shared import Shared
from lxdsched.fleet.standing import look
from lxdsched.fleet.subscription import Subscription
from lxdsched.fleet.turns import Turns
from lxdsched.model import State, View

SOON = 0.5
"""Seconds within which a host is looked at whose stream has ended."""
MEMBERSHIP = 10.0
"""Seconds between two looks at whether a member of a cluster is in service."""

_UNASKED = HostError(State.UNREACHABLE, "it has not been asked yet")


class Host:
    """One configured host, from `start` to `stop`. `view` is what we know of it; `refresh` brings that up to date.

    `contacts` are shared by all hosts. `changed` is called with the host whenever its view is another one, or it is
    `settled` or no longer.
    """

    _log = Logger()

    def __init__(
        self,
        settings: HostSettings,
        client: HostClient,
        clock: IReactorTime,
        *,
        patience: Patience,
        counting: Counting,
        contacts: Contacts,
        random: Random,
    ) -> None:
        self.settings = settings
        self.asked = False  # whether a question has ended, well or badly
        self.changed: Callable[[Host], None] = lambda _host: None
        self._client = client
        self._clock = clock
        self._patience = patience
        self._contacts = contacts
        self._random = random
        self._inquiry = Inquiry(settings.host, client, clock, patience=patience, counting=counting)
        self._subscription = Subscription(
            client.listen,
            clock,
            patience,
            random,
            opened=self._opened,
            heard=self._heard,
            lost=self._lost,
            failed=self._lost,
            meet=contacts.meet,
        )
        self._trouble: HostError | None = _UNASKED
        self._failures = 0
        self._well_since = 0.0
        self._thorough = False
        self._checks = 0  # to come before the next turn that lists
        # Every event has a number. What was listed covers the events up to the one before which it was asked for.
        self._event = 0
        self._covered = 0
        self._opening = 0  # the event that the opening of the stream is
        self._pace = Pace(clock)
        self._question = Shared(self._ask)
        self._turns = Turns(clock, self._look_after)
        self._late = False  # whether somebody has waited in vain for what the latest event meant
        self._catching_up: Deferred[None] | None = None
        self._chasing = False
        self._fading: IDelayedCall | None = None
        self._stopped = False
        self.view = self._look()

    def start(self) -> None:
        """Ask the host for the first time, and from then on again and again."""
        self._turns.take()

    async def stop(self) -> None:
        """Ask no more, and drop what is connected. Whoever waits gets what is known."""
        self._stopped = True
        self._turns.stop()
        self._fade(None)
        if self._catching_up is not None:
            self._catching_up.cancel()
        self._question.cancel()
        await self._subscription.stop()
        await self._client.close()

    @property
    def live(self) -> bool:
        """Whether the host tells by itself when something happens, and has been listed since it began to."""
        return self._heard_of and self._covered >= self._opening

    @property
    def _heard_of(self) -> bool:
        return self._trouble is None and self._subscription.open and not self._stopped

    @property
    def settled(self) -> bool:
        """Whether to ask would tell nothing new: nothing has happened since the listing, or nobody answers."""
        if self._trouble is not None or self._stopped:
            return self.asked or self._stopped
        if self._late:
            return True
        return self.live and self._covered == self._event

    def refresh(self) -> Deferred[None] | None:
        """Bring the view up to date with all that has happened until now.

        The Deferred fires when that is done; it never fails but by being cancelled, which touches nobody else. None
        when the host is settled.
        """
        if self.settled:
            return None
        return Deferred.fromCoroutine(self._until(self._event))

    def give_up(self) -> None:
        """Take note that somebody has waited for long enough: the view is an old one until the host has caught up."""
        if not self.settled and self.asked:
            self._late = True
            self._show()

    def reconsider(self) -> None:
        """Meet the host anew: another certificate than before is trusted now, or none."""
        if self._stopped:
            return
        self._log.info("host {host} is asked again, since what it is known by has changed", host=self.settings.host)
        self._client.distrust()
        self._turns.rest_anew(self._random.uniform(0, SOON))

    async def _until(self, event: int) -> None:
        if not self.live:
            await self._question.join()
        while self._trouble is None and not self._stopped and self._covered < event:
            await self._question.join()

    async def _ask(self) -> None:
        """Ask for the listing, before it for the capacity where that is not known for sure."""
        if self.live:
            # Of a burst of events, the first ones are followed at once and the others together.
            await deferLater(self._clock, self._pace.wait())
        if (event := await self._contacts.meet(self._attempt)) is not None:
            self._covered = event
            self._succeed()

    async def _attempt(self) -> int | None:
        """Ask under the deadline. Whatever goes wrong takes the host out of the running, and nothing else."""
        self._pace.count()
        event = self._event
        thorough, self._thorough = self._thorough, False
        try:
            await self._inquiry.ask(anew=self._trouble is not None, thorough=thorough)
        except HostError as error:
            self._fail(error)
            return None
        except CancelledError:
            raise
        except Exception:
            self._log.failure("a question to {host} broke", host=self.settings.host)
            self._fail(HostError(State.UNREACHABLE, "asking it broke something of ours; the log says what"))
            return None
        return event

    def _opened(self) -> None:
        # What happened until now, nobody told.
        self._event += 1
        self._opening = self._event
        self._inquiry.doubt()
        self._catch_up()

    def _heard(self, event: Event) -> None:
        hint = read_hint(event, self._inquiry.capacity)
        if hint is Hint.NOTHING:
            return
        if hint is Hint.STANDING:
            self._inquiry.doubt()
        self._event += 1
        self._catch_up()

    def _lost(self, _reason: str) -> None:
        # Perhaps the host itself is lost, or our right to see it: find out before a request does.
        self._show()
        if self._trouble is None:
            self._checks = 0
            self._turns.rest_anew(self._random.uniform(0, SOON))

    def _catch_up(self) -> None:
        """List the host until nothing has happened since."""
        self.changed(self)
        if not self._chasing:
            self._chasing = True
            self._catching_up = Deferred.fromCoroutine(self._chase())
            self._catching_up.addErrback(_ignore, CancelledError)

    async def _chase(self) -> None:
        try:
            while self._heard_of and self._covered < self._event:
                await self._question.join()
        finally:
            self._chasing = False

    async def _look_after(self) -> None:
        """Do what no request does: list a host that nobody asks about, probe one that failed, renew its capacity.

        Between two listings, a member of a cluster is asked whether it is in service: not every LXD tells.
        """
        if self._trouble is None and self._checks > 0 and await self._check():
            self._checks -= 1
        else:
            self._thorough = True
            await self._question.join()
            self._checks = int(self._patience.poll // MEMBERSHIP) if self._inquiry.clustered else 0
        between = min(self._patience.poll, MEMBERSHIP) if self._inquiry.clustered else self._patience.poll
        self._turns.rest(between * self._random.uniform(0.8, 1.0))

    async def _check(self) -> bool:
        """Ask a host that lists whether it is to be left alone; False when it does not tell."""
        try:
            await self._inquiry.check()
        except CancelledError:
            raise
        except HostError:
            return False
        except Exception:
            self._log.failure("a look at {host} broke", host=self.settings.host)
            return False
        self._show()
        return True

    def _succeed(self) -> None:
        self.asked = True
        if self._trouble is not None:
            self._well_since = self._clock.seconds()
        self._trouble = None
        self._late = self._late and self._covered < self._event
        self._show()
        self._subscription.start()
        if self._covered < self._event:
            self._catch_up()
        if self._turns.resting and self._inquiry.reconnected:
            self._checks = 0  # only a turn that lists renews
            self._turns.rest_anew(self._inquiry.due_in())

    def _fail(self, error: HostError) -> None:
        self.asked = True
        anew = self._trouble is None or self._trouble is _UNASKED
        if anew and self._clock.seconds() - self._well_since > self._patience.probe_most:
            self._failures = 0
        self._trouble = error
        self._late = False
        self._failures += 1
        if error.state is not State.STALE:
            self._subscription.pause()
        self._show(anew=anew)
        growth = 2 ** min(self._failures - 1, 16)
        longest = min(self._patience.probe_first * growth, self._patience.probe_most)
        self._turns.rest_anew(longest * self._random.uniform(0.8, 1.0))

    def _show(self, *, anew: bool = False) -> None:
        before, self.view = self.view, self._look()
        report(before, self.view, failing=self._trouble is not None, anew=anew)
        self._fade(self.view)
        self.changed(self)

    def _fade(self, view: View | None) -> None:
        """Have a stale view end when it has become too old."""
        if self._fading is not None:
            self._fading.cancel()
            self._fading = None
        if view is not None and view.state is State.STALE and view.observed_at is not None and not self._stopped:
            left = view.observed_at + self._patience.stale - self._clock.seconds()
            self._fading = self._clock.callLater(max(left, 0) + 0.001, self._faded)

    def _faded(self) -> None:
        self._fading = None
        self._show()

    def _look(self) -> View:
        trouble = self._trouble
        if trouble is None and self._late:
            trouble = HostError(State.STALE, "it answers, but has not listed in time what happened there")
        return look(
            self.settings.host,
            self._inquiry,
            trouble,
            live=self.live,
            why_not=self._subscription.reason,
            stale=self._patience.stale,
        )


def _ignore(failure: Failure, *expected: type[Exception]) -> None:
    failure.trap(*expected)
