"""The stream of one host, kept open: opened again whenever it has ended, soon at first and then less and less often.

What is heard says that something happened, what is lost that something may have: whoever subscribes asks the host
itself after either, and each time that the stream is opened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from lxdsched.alarm import alarm
from lxdsched.fleet.client import HostError
from lxdsched.fleet.events import Event
from lxdsched.fleet.settings import Patience
from lxdsched.model import State


class Stream(Protocol):
    """A stream that is open."""

    def close(self) -> None:
        """Drop it at once; nothing is told of it any more."""


Listen = Callable[[Callable[[Event], None], Callable[[str], None]], Awaitable[Stream]]
"""Opens a stream, or raises HostError. It is given `heard` and `lost`; `lost` is called once, and last."""


Meet = Callable[[Callable[[], Coroutine[Any, Any, Stream]]], Coroutine[Any, Any, Stream]]


async def _at_once(ask: Callable[[], Coroutine[Any, Any, Stream]]) -> Stream:
    return await ask()


def _nobody(_reason: str) -> None:
    """Tell nobody."""


class Subscription:
    """Listens to one host, from `start` to `pause` or `stop`.

    `opened` is called each time that the stream is open, `heard` for every event, `lost` each time that an open stream
    has ended by itself, and `failed` each time that it could not be opened; the last two with a sentence. Opening has
    `question` seconds. `open` says whether the stream is up, `reason` why it is not: None while it is open, and while
    it has not been tried yet.
    """

    _log = Logger()

    def __init__(
        self,
        listen: Listen,
        clock: IReactorTime,
        patience: Patience,
        random: Random,
        *,
        opened: Callable[[], None],
        heard: Callable[[Event], None],
        lost: Callable[[str], None],
        failed: Callable[[str], None] = _nobody,
        meet: Meet = _at_once,
    ) -> None:
        self.reason: str | None = None
        self._listen = listen
        self._clock = clock
        self._patience = patience
        self._random = random
        self._opened = opened
        self._heard = heard
        self._lost = lost
        self._failed = failed
        self._meet = meet
        self._started = False
        self._stream: Stream | None = None
        self._opened_at = 0.0
        self._waits = 0  # in a row, without a stream that lasted
        self._attempt: Deferred[Stream] | None = None
        self._timer: IDelayedCall | None = None

    @property
    def open(self) -> bool:
        """Whether the stream is up."""
        return self._stream is not None

    def start(self) -> None:
        """Begin to listen, at once; go on where that has begun."""
        if not self._started:
            self._started = True
            self._try()

    def pause(self) -> None:
        """Drop the stream, or the attempt to open it, and try no more until the next `start`. Nobody is told."""
        self._started = False
        self._waits = 0
        self.reason = None
        timer, self._timer = self._timer, None
        attempt, self._attempt = self._attempt, None
        stream, self._stream = self._stream, None
        if timer is not None:
            timer.cancel()
        if attempt is not None:
            attempt.cancel()
        if stream is not None:
            stream.close()

    async def stop(self) -> None:
        """Listen no more, and wait until the connection is gone."""
        self.pause()
        await deferLater(self._clock, 0)  # a dropped connection is gone a turn later

    def _try(self) -> None:
        self._timer = None
        attempt = self._attempt = Deferred.fromCoroutine(self._meet(self._connect))
        Deferred.fromCoroutine(self._follow(attempt))

    async def _connect(self) -> Stream:
        """Open it under its deadline, which begins when the turn of the host has come."""
        asking = Deferred.fromCoroutine(self._ask())
        with alarm(self._clock, self._patience.question, asking.cancel) as deadline:
            try:
                return await asking
            except CancelledError:
                if deadline.active():
                    raise
                late = f"it did not open its event stream within {self._patience.question:g} s"
                raise HostError(State.UNREACHABLE, late) from None

    async def _ask(self) -> Stream:
        return await self._listen(self._heard, self._end)

    async def _follow(self, attempt: Deferred[Stream]) -> None:
        """Wait for what comes of an attempt, under its deadline."""
        reason = None
        try:
            stream = await attempt
        except (CancelledError, HostError) as error:
            reason = str(error)
        except Exception:
            self._log.failure("listening to a host broke")
            reason = "listening to it broke something of ours; the log says what"
        if self._attempt is not attempt:
            return  # called off
        self._attempt = None
        if reason is None:
            self._stream = stream
            self._opened_at = self._clock.seconds()
            self.reason = None
            self._opened()
        else:
            self._waits = max(self._waits, 1)
            self._wait(reason)
            self._failed(reason)

    def _end(self, reason: str) -> None:
        self._stream = None
        if self._clock.seconds() - self._opened_at > self._patience.probe_most:
            self._waits = 0
        self._wait(reason)
        self._lost(reason)

    def _wait(self, reason: str) -> None:
        """Try again later: soon where a stream has been up for long, after growing times where none has."""
        self.reason = reason
        if self._waits == 0:
            seconds = self._random.uniform(0, self._patience.probe_first / 2)
        else:
            growth = 2 ** min(self._waits - 1, 16)
            seconds = min(self._patience.probe_first * growth, self._patience.probe_most)
            seconds *= self._random.uniform(0.8, 1.0)
        self._waits += 1
        self._timer = self._clock.callLater(seconds, self._try)
