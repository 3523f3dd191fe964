"""What is found in Redis and is not ours: said, but never so often that it fills the log, nor looked at twice."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lxdsched.ledger.records import Entry

MOST_ODD = 10_000
"""Records that are remembered, so that each is complained of once, and not read again."""
MOST_SAID = 10
"""Lines of the log in a minute that are about one thing each. One more has the number of the others."""
MINUTE = 60.0
"""Seconds."""


class Strangers:
    """Complains of what is not ours, by `clock`."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._odd: dict[str, int] = {}  # the id of a record: the hash of what is known of it
        self._minute_began = -MINUTE
        self._said = 0
        self._unsaid = 0
        self._summed_up = False

    def __len__(self) -> int:
        return len(self._odd)

    def forget(self) -> None:
        """Know no record any more: another Redis may have others. What was said a moment ago is not said again."""
        self._odd.clear()

    def knows(self, entry: Entry, host: str) -> bool:
        """Tell whether a record was found to be odd before, on this host, just as it is."""
        return entry.id in self._odd and self._odd[entry.id] == hash((host, entry.record))

    def found(self, entry: Entry, host: str, error: str) -> None:
        """Take note of a record that is none."""
        known = entry.id in self._odd
        if known or len(self._odd) < MOST_ODD:
            self._odd[entry.id] = hash((host, entry.record))
        if not known:
            self.complain(error)

    def complain(self, error: str) -> None:
        """Say that something is not ours, or that there is one more of such."""
        now = self._clock.seconds()
        if not 0 <= now - self._minute_began < MINUTE:  # a clock may be set back
            self._minute_began, self._said, self._summed_up = now, 0, False
        if self._said < MOST_SAID:
            self._said += 1
            self._log.error("the shared ledger holds what is not ours: {error}", error=error)
        else:
            self._unsaid += 1

    def sum_up(self) -> None:
        """Say, once in a minute, how many more there were than were said."""
        if self._unsaid and not self._summed_up:
            self._log.error(
                "the shared ledger holds more that is not ours, {number} times: of that no more is said for a minute",
                number=self._unsaid,
            )
            self._unsaid, self._summed_up = 0, True
