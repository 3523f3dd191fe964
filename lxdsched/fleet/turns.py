"""Something that is done again and again, with rests between that the work itself sets."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure


class Turns:
    """Does `work` at each turn, until `stop`."""

    def __init__(self, clock: IReactorTime, work: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        self._clock = clock
        self._work = work
        self._timer: IDelayedCall | None = None
        self._running: set[Deferred[None]] = set()
        self._stopped = False

    @property
    def resting(self) -> bool:
        """Whether the next turn is waited for."""
        return self._timer is not None

    def take(self) -> None:
        """Take a turn now."""
        self._timer = None
        turn = Deferred.fromCoroutine(self._work())
        self._running.add(turn)
        turn.addErrback(_ignore)
        turn.addBoth(lambda _: self._running.discard(turn))

    def rest(self, seconds: float) -> None:
        """Let the next turn come after some time, unless one is to come already."""
        if self._timer is None and not self._stopped:
            self._timer = self._clock.callLater(seconds, self.take)

    def rest_anew(self, seconds: float) -> None:
        """Let the next turn come after some time, and not when it was to come."""
        self._hush()
        self.rest(seconds)

    def stop(self) -> None:
        """Take no more turns, and give up those that are under way."""
        self._stopped = True
        self._hush()
        for turn in list(self._running):
            turn.cancel()

    def _hush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _ignore(failure: Failure) -> None:
    failure.trap(CancelledError)
