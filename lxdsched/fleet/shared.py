"""A question that many wait for, and that is asked once at a time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

Question = Callable[[], Coroutine[Deferred[Any], Any, None]]


class Shared:
    """Asks when somebody joins and nobody else is waiting. Who leaves, by cancelling, leaves the others alone."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._asking: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []

    def join(self) -> Deferred[None]:
        """Ask, or wait for the answer that is on its way. The Deferred fails by being cancelled alone."""
        waiter: Deferred[None] = Deferred(self._leave)
        self._waiting.append(waiter)
        if self._asking is None:
            asking = self._asking = Deferred.fromCoroutine(self._question())
            asking.addBoth(self._answered)
        return waiter

    def cancel(self) -> None:
        """Ask no more; whoever waits is let go."""
        if self._asking is not None:
            self._asking.cancel()

    def _leave(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def _answered(self, result: object) -> None:
        self._asking = None
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(None)
        if isinstance(result, Failure):
            result.trap(CancelledError)  # by `cancel`
