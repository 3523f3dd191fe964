"""Something that goes wrong again and again, and is told when it begins, when it becomes another, and when it ends."""

from __future__ import annotations

from twisted.logger import Logger


class Trouble:
    """Tells of one trouble at a time; `over` is what is said of its end."""

    _log = Logger()

    def __init__(self, over: str) -> None:
        self._over = over
        self._told = ""

    def complain(self, trouble: str) -> None:
        """Tell of it, unless that has been done."""
        if trouble != self._told:
            self._told = trouble
            self._log.error("{log_said}", log_said=trouble)

    def end(self) -> None:
        """Tell that it is over, if there was any."""
        if self._told:
            self._told = ""
            self._log.info("{log_said}", log_said=self._over)
