"""Reads again what may change while the daemon runs: who the clients are, and the listener's certificates.

That is done at SIGHUP, and by itself when one of the files has changed. What cannot be used changes nothing: the log
says why, and the daemon goes on with what it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lxdsched.config import Config, ConfigError, Guard

WATCH = 5.0
"""Seconds between two looks at whether a file has changed."""
SETTLED = 0.5
"""Seconds for which a file that has changed stays as it is before it is read: somebody may be writing it."""

_Look = tuple[tuple[int, ...] | None, ...]


class Reload:
    """Reads the guard of a configuration again and hands it on: when told to, and from `start` to `stop` by itself."""

    _log = Logger()

    def __init__(self, config: Config, clock: IReactorTime, take: Callable[[Guard], None]) -> None:
        self._config = config
        self._clock = clock
        self._take = take
        self._seen = self._found = _look(config.reread_files)
        self._faults: tuple[str, ...] = ()  # of the last time
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to watch the files."""
        if self._config.reread_files:
            self._next = self._clock.callLater(WATCH, self._watch)

    def stop(self) -> None:
        """Watch them no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def now(self) -> None:
        """Read them again, changed or not."""
        self._faults = ()
        self._read()

    def _read(self) -> None:
        self._seen = _look(self._config.reread_files)
        try:
            guard = self._config.reread()
        except ConfigError as error:
            before, self._faults = self._faults, tuple(error.faults)
            if self._faults != before:
                for fault in self._faults:
                    self._log.error("what has changed is not taken over: {fault}", fault=fault)
            return
        self._faults = ()
        self._take(guard)
        for warning in guard.warnings:
            self._log.warn("{log_said}", log_said=warning)
        files = ", ".join(map(str, self._config.reread_files))
        self._log.info("read again: {files}", files=files or "nothing, since neither clients_file nor tls_cert is set")

    def _watch(self) -> None:
        before, self._found = self._found, _look(self._config.reread_files)
        changed = self._found != self._seen
        settling = changed and self._found != before
        self._next = self._clock.callLater(SETTLED if settling else WATCH, self._watch)
        # What could not be read may be read by now, though the files are the same: somebody may wait for a key to end.
        if not settling and (self._faults or changed):
            self._read()


def _look(paths: Iterable[Path]) -> _Look:
    """Tell files from what they were before, without reading them."""
    return tuple(map(_stat, paths))


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size
