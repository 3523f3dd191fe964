"""Reads again what may change while the daemon runs: who the clients are, the listener's certificates, and the hosts.

That is done at SIGHUP, and but for the hosts by itself when one of the files has changed. What cannot be used changes
nothing: the log says why, and the daemon goes on with what it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lxdsched.certificates import OurCertificate
from lxdsched.config import Config, ConfigError, Guard
from lxdsched.fleet.fleet import Fleet
from lxdsched.fleet.host import Host
from lxdsched.fleet.settings import HostSettings

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


class HostsReload:
    """Reads the configuration again, and has a fleet take over its hosts when told to.

    `make` makes a host, `take` is told which certificates of ours are in use from then on.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        make: Callable[[HostSettings], Host],
        take: Callable[[Sequence[OurCertificate]], None],
    ) -> None:
        self._config = config
        self._fixed = config.fixed
        self._fleet = fleet
        self._make = make
        self._take = take

    def now(self) -> None:
        """Read it again."""
        try:
            anew = self._config.again()
        except ConfigError as error:
            for fault in error.faults:
                self._log.error("the hosts stay as they are: {fault}", fault=fault)
            return
        before, self._config = self._config, anew
        for warning in anew.warnings:
            if warning not in before.warnings:
                self._log.warn("{log_said}", log_said=warning)
        others = sorted(name for name, value in anew.fixed.items() if self._fixed[name] != value)
        if others:
            self._log.warn("changed, and taken over at the next start alone: {settings}", settings=", ".join(others))
        self._change({each.host: each for each in before.hosts}, {each.host: each for each in anew.hosts})
        self._take(anew.certificates)

    def _change(self, before: Mapping[str, HostSettings], after: Mapping[str, HostSettings]) -> None:
        gone = [host for host in before if host not in after]
        changed = [host for host in after if host in before and after[host] != before[host]]
        new = [host for host in after if host not in before]
        self._fleet.change([self._make(after[host]) for host in (*changed, *new)], gone)
        self._log.info(
            "hosts: {hosts}, of which {new} new and {changed} changed; {gone} gone",
            hosts=len(after),
            new=len(new),
            changed=len(changed),
            gone=len(gone),
        )


def _look(paths: Iterable[Path]) -> _Look:
    """Tell files from what they were before, without reading them."""
    return tuple(map(_stat, paths))


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size
