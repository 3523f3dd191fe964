"""What is asked of a host at once, under one deadline: the listing, and before it whatever is not known for sure."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lxdsched.alarm import alarm
from lxdsched.fleet.client import HostClient, HostError
from lxdsched.fleet.counting import allocating
from lxdsched.fleet.settings import Counting, Patience
from lxdsched.fleet.work import in_turns
from lxdsched.model import Allocation, Capacity, State

RENEWAL = 5.0
"""Seconds at least between two looks at a host's size, however often it is connected to anew."""


class Inquiry:
    """Asks one host, and keeps what it said last."""

    _log = Logger()

    def __init__(
        self, host: str, client: HostClient, clock: IReactorTime, *, patience: Patience, counting: Counting
    ) -> None:
        self.capacity: Capacity | None = None
        self.drained: str | None = None
        self.allocation = Allocation()
        self.observed_at: float | None = None
        self.asked_at = 0.0  # when the listing of which that is the time was asked for
        self._host = host
        self._client = client
        self._clock = clock
        self._patience = patience
        self._counting = counting
        self._described_at = 0.0
        self._described_on = 0
        self._doubts = 0  # how often
        self._sure = 0  # of how many of them the host has told since
        self._looks = 0
        self._looked = 0  # the latest look that was answered
        self._put_off = False
        self._greeted = False
        self._greeting: Deferred[None] | None = None

    @property
    def reconnected(self) -> bool:
        """Whether the host has been connected to anew since it told its size: it may be another one."""
        return self._described_on != self._client.connected and not self._put_off

    @property
    def clustered(self) -> bool:
        """Whether the host is a member of a cluster."""
        return self.capacity is not None and self.capacity.clustered

    @property
    def too_old(self) -> bool:
        """Whether what the host listed last is no longer good for anything."""
        return self.observed_at is None or self._clock.seconds() - self.observed_at > self._patience.stale

    def due_in(self) -> float:
        """Say in how many seconds the host may have another size."""
        interval = min(RENEWAL, self._patience.capacity) if self.reconnected else self._patience.capacity
        return max(self._described_at + interval - self._clock.seconds(), 0.0)

    def doubt(self) -> None:
        """Take note that the host may be drained by now, or no longer."""
        self._doubts += 1

    async def check(self) -> None:
        """Ask only whether the host is to be left alone. Raises HostError, by the deadline of a question."""
        await self._by_deadline(Deferred.fromCoroutine(self._check()))

    async def ask(self, *, anew: bool, thorough: bool) -> None:
        """Ask for the listing, and before it who the host is: `anew`, or when it is time and there is (`thorough`).

        Raises HostError for whatever went wrong, by the deadline of a question.
        """
        await self._by_deadline(Deferred.fromCoroutine(self._ask(anew, thorough)))

    async def _ask(self, anew: bool, thorough: bool) -> None:
        if anew:
            await self._describe()
        elif thorough and self.due_in() <= 0 and await self._renew():
            pass
        elif thorough or self._sure < self._doubts:
            await self._check()
        await self._list(described=anew)

    async def _check(self) -> None:
        look = self._look()
        self._told(look, await self._client.drained())

    def _look(self) -> tuple[int, int]:
        self._looks += 1
        return self._looks, self._doubts

    def _told(self, look: tuple[int, int], drained: str | None) -> None:
        # What was asked earlier may be answered later.
        number, doubts = look
        if number > self._looked:
            self._looked, self._sure, self.drained = number, doubts, drained

    async def _list(self, *, described: bool) -> None:
        self._greeted = described  # a moment ago
        asked_at = self._clock.seconds()
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
        capacity = self.capacity
        assert capacity is not None  # noqa: S101  # who lists has been described
        counting = allocating(rows, odd, capacity, self._counting, self.allocation.members)
        allocation = await in_turns(self._clock, counting)
        if allocation != self.allocation or self.observed_at is None:
            self.allocation = allocation
        self.observed_at = self._clock.seconds()
        self.asked_at = asked_at

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
        look = self._look()
        said = await self._client.describe()
        self.capacity = said.capacity
        self._told(look, said.drained)
        self._put_off = False
        self._described_at = self._clock.seconds()
        self._described_on = self._client.connected

    async def _renew(self) -> bool:
        """Ask for the size again. A host that cannot tell it in time keeps the one it told, as long as it lists."""
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
                self._log.warn("host {host} does not tell its size anew: {reason}", host=self._host, reason=why)
                self._put_off = True  # to give up drops the connections: the next one is no news
                return False
        return True

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
            if self._greeted and self.observed_at is not None:
                raise HostError(State.STALE, f"it answers, but did not list its instances within {seconds}") from None
            raise HostError(State.UNREACHABLE, f"it did not answer within {seconds}") from None
