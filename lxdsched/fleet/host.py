"""One host: what it last said, and when it is asked again.

A host is *in the running* until a question fails. While it is, a request asks it for its listing; all requests that
wait share one question, and one that goes away leaves the question alone. Once a question has failed, no request
waits for the host again: it is probed in the background, at growing intervals, until it answers. So a dead host costs
the requests of one moment one deadline, and later ones nothing.
"""

from __future__ import annotations

from random import Random

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lxdsched.fleet.alarm import alarm
from lxdsched.fleet.client import HostClient, HostError
from lxdsched.fleet.payloads import allocate
from lxdsched.fleet.settings import Counting, HostSettings, Patience
from lxdsched.fleet.shared import Shared
from lxdsched.limits import Share
from lxdsched.model import Allocation, Capacity, State, View

HANDSHAKE = 0.5
"""Seconds for which a host that is met may keep others from being met."""
RENEWAL = 5.0
"""Seconds at least between two looks at a host's size, however often it is connected to anew."""
MOST_DOUBTS = 10
"""Doubtful instances of a host that the log names one by one."""

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
        self._described_on = 0
        self._shares: dict[str, Share] = {}
        self._allocation = Allocation()
        self._observed_at: float | None = None
        self._trouble: HostError | None = _UNASKED
        self._failures = 0
        self._greeted = False
        self._greeting: Deferred[None] | None = None
        self._renewing = False
        self._question = Shared(self._ask)
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
        if self._background is not None:
            self._background.cancel()
        self._question.cancel()
        await self._client.close()

    def view(self) -> View:
        """Say what is known of the host now, without asking it."""
        if self._view.state is State.STALE and self._too_old():
            self._show()
        return self._view

    def refresh(self) -> Deferred[None] | None:
        """Ask the host for its listing, or join the question that is under way.

        The Deferred fires when the answer is in `view`; it never fails but by being cancelled, which touches nobody
        else. None when there is nothing to wait for: the host is out of the running.
        """
        if self._trouble is not None and self.asked:
            return None
        return self._question.join()

    async def _ask(self) -> None:
        """Ask for the listing, before it for the capacity where that is not known for sure."""
        if self._trouble is None:
            answered = await self._attempt()
        else:
            answered = await self._meet()
        if answered:
            self._succeed()

    async def _meet(self) -> bool:
        """Ask a host that has to be connected to, when its turn has come.

        The turn is over after the time that a handshake may take, so that silent hosts do not keep others waiting.
        """
        await self._contacts.acquire()
        turn = self._clock.callLater(HANDSHAKE, self._contacts.release)
        try:
            return await self._attempt()
        finally:
            if turn.active():
                turn.cancel()
                self._contacts.release()

    async def _attempt(self) -> bool:
        """Ask under the deadline. Whatever goes wrong takes the host out of the running, and nothing else."""
        try:
            await self._by_deadline(Deferred.fromCoroutine(self._listing()))
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
        elif self._renewing:
            await self._renew()
        self._greeted = False
        try:
            with alarm(self._clock, self._patience.question / 2, self._greet):
                rows, odd = await self._client.instances()
        except HostError as error:
            if error.state is State.RESTRICTED and not described:
                await self._client.describe()  # says what became of our right to see
            raise
        finally:
            if self._greeting is not None:
                self._greeting.cancel()
        capacity = self._capacity
        assert capacity is not None  # noqa: S101  # in the running means described
        self._allocation, self._shares = allocate(rows, odd, capacity, self._counting, self._shares)
        self._observed_at = self._clock.seconds()

    def _greet(self) -> None:
        # The listing takes long. Whether the host is gone or only cannot list decides what its last view is worth.
        def greeted(result: object) -> None:
            self._greeting = None
            self._greeted = not isinstance(result, Failure)
            if isinstance(result, Failure):
                result.trap(HostError, CancelledError)

        greeting = self._greeting = Deferred.fromCoroutine(self._client.greet())
        greeting.addBoth(greeted)

    async def _describe(self) -> None:
        self._capacity = await self._client.describe()
        self._described_at = self._clock.seconds()
        self._described_on = self._client.connected

    async def _by_deadline(self, asking: Deferred[None]) -> None:
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            asking.cancel()

        try:
            with alarm(self._clock, self._patience.question, give_up):
                await asking
        except (CancelledError, HostError):
            if not late:
                raise
            seconds = f"{self._patience.question:g} s"
            if self._greeted and self._observed_at is not None:
                raise HostError(State.STALE, f"it answers, but did not list its instances within {seconds}") from None
            raise HostError(State.UNREACHABLE, f"it did not answer within {seconds}") from None

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
        self._renewing = self._trouble is None and self._due_in() <= 0
        await self._question.join()
        self._rest(self._patience.poll * self._random.uniform(0.8, 1.0))

    def _due_in(self) -> float:
        """Say in how many seconds the host may have another size: soon when it is met on a new connection."""
        renewed = self._described_on != self._client.connected
        interval = min(RENEWAL, self._patience.capacity) if renewed else self._patience.capacity
        return self._described_at + interval - self._clock.seconds()

    async def _renew(self) -> None:
        """Ask for the capacity again. A host that cannot tell it in time keeps the one it told, as long as it lists."""
        self._renewing = False
        self._described_at = self._clock.seconds()
        self._described_on = self._client.connected
        asking = Deferred.fromCoroutine(self._describe())
        with alarm(self._clock, self._patience.question / 2, asking.cancel) as deadline:
            try:
                await asking
            except (CancelledError, HostError) as error:
                ours = deadline.active() and isinstance(error, CancelledError)
                if ours or getattr(error, "state", None) in {State.UNTRUSTED, State.RESTRICTED}:
                    raise
                why = str(error) or "it does not answer"
                self._log.warn("host {host} does not tell its size anew: {reason}", host=self.settings.host, reason=why)

    def _rest(self, seconds: float) -> None:
        """Let the next turn come after some time, unless one is to come already."""
        if self._timer is None and not self._stopped:
            self._timer = self._clock.callLater(seconds, self._turn)

    def _succeed(self) -> None:
        self.asked = True
        self._trouble = None
        self._failures = 0
        self._show()
        if self._timer is not None and self._described_on != self._client.connected:
            self._hush()
            self._rest(max(self._due_in(), 0))

    def _fail(self, error: HostError) -> None:
        self.asked = True
        self._trouble = error
        self._failures += 1
        self._show()
        self._hush()
        growth = 2 ** min(self._failures - 1, 16)
        longest = min(self._patience.probe_first * growth, self._patience.probe_most)
        self._rest(longest * self._random.uniform(0.8, 1.0))

    def _show(self) -> None:
        before, self._view = self._view, self._look()
        now = self._view
        if now.state is not before.state or self._failures == 1:
            told = {"host": now.host, "state": now.state.value, "reason": now.reason}
            if self._trouble is not None:
                self._log.warn("host {host} is {state}: {reason}", **told)
            elif now.state is not State.DOUBTFUL:
                self._log.info("host {host} answers: {state}", **told)
        doubts = now.allocation.doubts
        if doubts == before.allocation.doubts:
            return
        for instance, doubt in list(doubts.items())[:MOST_DOUBTS]:
            told = {"host": now.host, "instance": instance, "doubt": doubt}
            self._log.warn("instance {instance} on {host} is doubtful: {doubt}", **told)
        if len(doubts) > MOST_DOUBTS:
            self._log.warn("{count} instances on {host} are doubtful", host=now.host, count=len(doubts))

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
