"""How often something may be done: a few times at once after a rest, and then at an even pace."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

INTERVAL = 0.2
"""Seconds between two times, in the long run."""
BURST = 3
"""How many times may come at once after a rest."""


class Pace:
    """Counts, and says how long to wait."""

    def __init__(self, clock: IReactorTime, interval: float = INTERVAL, burst: int = BURST) -> None:
        self._clock = clock
        self._interval = interval
        self._slack = interval * (burst - 1)
        self._due = clock.seconds()

    def wait(self) -> float:
        """Say in how many seconds it may be done again."""
        # No longer than an interval: a clock may be set back.
        return min(max(self._due - self._slack - self._clock.seconds(), 0.0), self._interval)

    def count(self) -> None:
        """Take note that it is done now."""
        # Who does it without waiting owes no more than a burst.
        now = self._clock.seconds()
        self._due = min(max(self._due, now), now + self._slack) + self._interval
