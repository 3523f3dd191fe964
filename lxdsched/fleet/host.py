"""One host: what it last said, and when it is asked again.

A host is *in the running* until a question fails. While it is, a request asks it for its listing; all requests that
wait share one question, and one that goes away leaves the question alone. Once a question has failed, no request
waits for the host again: it is probed in the background, at growing intervals, until it answers. So a dead host costs
the requests of one moment one deadline, and later ones nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lxdsched.fleet.client import HostClient, HostError
from lxdsched.fleet.payloads import allocate
from lxdsched.fleet.settings import Counting, HostSettings, Patience
from lxdsched.limits import Share
from lxdsched.model import Allocation, Capacity, State, View

_UNASKED = HostError(State.UNREACHABLE, "it has not been asked yet")


class Host:
    """One configured host, from `start` to `stop`. `view` is what we know of it; `refresh` brings that up to date.

    `contacts` bounds how many hosts are met for the first time, or again, at once: each costs a handshake, and a
    fleet of hundreds that is met all at once would miss every deadline by its own doing.
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
        contacts: DeferredSemaphore,
        random: Random,
    ) -> None:
        self.settings = settings
        self.asked = False  # whether a question has ended, well or badly
        self._client = client
        self._clock = clock
        self._patience = patience
        self._counting = counting
        self._contacts = contacts
        self._random = random
        self._capacity: Capacity | None = None
        self._described_at = 0.0
        self._shares: dict[str, Share] = {}
        self._allocation = Allocation()
        self._observed_at: float | None = None
        self._trouble: HostError | None = _UNASKED
        self._failures = 0
        self._greeted = False
        self._question: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._background: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._view = self._look()

    def start(self) -> None:
        """Ask the host for the first time, and from then on again and again."""
        self._turn()

    async def stop(self) -> None:
        """Ask no more, and drop what is connected. Whoever waits gets what is known."""
        self._stopped = True
        self._hush()
        for running in (self._background, self._question):
            if running is not None:
                running.cancel()
        self._tell()
        await self._client.close()

    def view(self) -> View:
        """Say what is known of the host now, without asking it."""
        if self._view.state is State.STALE and self._too_old():
            self._view = self._look()
        return self._view

    def refresh(self) -> Deferred[None] | None:
        """Ask the host for its listing, or join the question that is under way.

        The Deferred fires when the answer is in `view`; it never fails but by being cancelled, which touches nobody
        else. None when there is nothing to wait for: the host is out of the running.
        """
        if self._trouble is not None and self.asked:
            return None
        return self._join()

    def _join(self) -> Deferred[None]:
        waiter: Deferred[None] = Deferred(self._leave)
        self._waiting.append(waiter)
        if self._question is None:
            question = self._question = Deferred.fromCoroutine(self._ask())
            question.addBoth(self._asked)
            if question.called:
                self._question = None
        return waiter

    def _asked(self, result: object) -> None:
        self._question = None
        if isinstance(result, Failure):
            result.trap(CancelledError)  # by `stop`, and by nothing else
        self._tell()

    def _leave(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(None)

    async def _ask(self) -> None:
        """Ask for the listing, before it for the capacity where that is not known for sure."""
        if self._trouble is None:
            answered = await self._attempt(self._listing)
        else:
            await self._contacts.acquire()
            try:
                answered = await self._attempt(self._listing)
            finally:
                self._contacts.release()
        if answered:
            self._succeed()

    async def _attempt(self, question: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> bool:
        """Ask under the deadline. Whatever goes wrong takes the host out of the running, and nothing else."""
        try:
            await self._by_deadline(Deferred.fromCoroutine(question()))
        except HostError as error:
            self._fail(error)
            return False
        except CancelledError:
            raise
        except Exception:
            self._log.failure("a question to {host} broke", host=self.settings.host)
            self._fail(HostError(State.UNREACHABLE, "asking it broke something of ours; the log says what"))
            return False
        return True

    async def _listing(self) -> None:
        described = self._trouble is not None
        if described:
            await self._describe()
        self._greeted = False
        greeting = self._clock.callLater(self._patience.question / 2, self._greet)
        try:
            rows, doubts = await self._client.instances()
        except HostError as error:
            if error.state is State.RESTRICTED and not described:
                await self._client.describe()  # says what became of our right to see
            raise
        finally:
            if greeting.active():
                greeting.cancel()
        capacity = self._capacity
        assert capacity is not None  # noqa: S101  # in the running means described
        self._allocation, self._shares = allocate(rows, doubts, capacity, self._counting, self._shares)
        self._observed_at = self._clock.seconds()

    def _greet(self) -> None:
        # The listing takes long. Whether the host is gone or only cannot list decides what its last view is worth.
        def greeted(_result: None) -> None:
            self._greeted = True

        greeting = Deferred.fromCoroutine(self._client.greet())
        greeting.addCallback(greeted)
        greeting.addErrback(_ignore, HostError, CancelledError)

    async def _describe(self) -> None:
        self._capacity = await self._client.describe()
        self._described_at = self._clock.seconds()

    async def _by_deadline(self, asking: Deferred[None]) -> None:
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            asking.cancel()

        deadline = self._clock.callLater(self._patience.question, give_up)
        try:
            await asking
        except (CancelledError, HostError):
            if not late:
                raise
            seconds = f"{self._patience.question:g} s"
            if self._greeted and self._observed_at is not None:
                raise HostError(State.STALE, f"it answers, but did not list its instances within {seconds}") from None
            raise HostError(State.UNREACHABLE, f"it did not answer within {seconds}") from None
        finally:
            if deadline.active():
                deadline.cancel()

    def _hush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        self._timer = None
        self._background = Deferred.fromCoroutine(self._look_after())
        self._background.addErrback(_ignore, CancelledError)

    async def _look_after(self) -> None:
        """Do what no request does: list a host that nobody asks about, probe one that failed, renew its capacity."""
        due = self._clock.seconds() - self._described_at >= self._patience.capacity
        if self._trouble is None and due and not await self._attempt(self._describe):
            return
        await self._join()
        self._rest(self._patience.poll)

    def _rest(self, seconds: float) -> None:
        """Let the next turn come after some time, unless one is to come already."""
        if self._timer is None and not self._stopped:
            self._timer = self._clock.callLater(seconds * self._random.uniform(0.8, 1.0), self._turn)

    def _succeed(self) -> None:
        self.asked = True
        self._trouble = None
        self._failures = 0
        self._show()

    def _fail(self, error: HostError) -> None:
        self.asked = True
        self._trouble = error
        self._failures += 1
        self._show()
        self._hush()
        growth = 2 ** min(self._failures - 1, 16)
        self._rest(min(self._patience.probe_first * growth, self._patience.probe_most))

    def _show(self) -> None:
        before, self._view = self._view, self._look()
        now = self._view
        if now.state is not before.state or self._failures == 1:
            told = {"host": now.host, "state": now.state.value, "reason": now.reason}
            if self._trouble is not None:
                self._log.warn("host {host} is {state}: {reason}", **told)
            elif now.state is not State.DOUBTFUL:
                self._log.info("host {host} answers: {state}", **told)
        if now.allocation.doubts and now.allocation.doubts != before.allocation.doubts:
            for instance, doubt in now.allocation.doubts.items():
                self._log.warn(
                    "instance {instance} on {host} is doubtful: {doubt}",
                    host=now.host,
                    instance=instance,
                    doubt=doubt,
                )

    def _look(self) -> View:
        state, reason = self._standing()
        return View(
            host=self.settings.host,
            state=state,
            reason=reason,
            capacity=self._capacity,
            allocation=self._allocation,
            observed_at=self._observed_at,
        )

    def _standing(self) -> tuple[State, str | None]:
        if self._trouble is not None:
            if self._trouble.state is State.STALE and self._too_old():
                return State.UNREACHABLE, f"{self._trouble.reason}, for longer than {self._patience.stale:g} s"
            return self._trouble.state, self._trouble.reason
        if doubts := self._allocation.doubts:
            instance, doubt = next(iter(doubts.items()))
            others = f", and {len(doubts) - 1} more" if len(doubts) > 1 else ""
            return State.DOUBTFUL, f"cannot tell what {instance} may use: {doubt}{others}"
        return State.POLLED, None

    def _too_old(self) -> bool:
        return self._observed_at is None or self._clock.seconds() - self._observed_at > self._patience.stale


def _ignore(failure: Failure, *expected: type[Exception]) -> None:
    failure.trap(*expected)
