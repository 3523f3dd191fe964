"""How the service stands, as `systemctl status` shows it: ready once every host was looked at, and how many answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lxdsched.model import State, View
from lxdsched.spelling import counted
from lxdsched.systemd.manager import Manager

FIRST_BEAT = 0.1
"""Seconds between two looks at whether we are ready."""
BEAT = 5.0
"""Seconds between two looks at how we stand, once we are."""
WITHIN = 3
"""How often the watchdog hears of us within the time in which it has to."""
_MICROSECONDS = 1_000_000


class Standing:
    """Tells the manager how we stand, from `start` until `stop`.

    `asked` says whether everything was looked at once, `snapshot` what is known of the hosts, and `degraded` whether
    what other replicas claim is not known. `clock` is the system's monotonic one.
    """

    def __init__(
        self,
        manager: Manager,
        clock: IReactorTime,
        *,
        asked: Callable[[], bool],
        snapshot: Callable[[], Sequence[View]],
        degraded: Callable[[], bool],
    ) -> None:
        self._manager = manager
        self._clock = clock
        self._asked = asked
        self._snapshot = snapshot
        self._degraded = degraded
        self._ready = False
        self._status = ""
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to tell."""
        self._beat()

    def reload(self, what: Callable[[], None]) -> None:
        """Tell that things are read again, do that, and tell that it is done."""
        if self._ready:
            now = int(self._clock.seconds() * _MICROSECONDS)
            self._manager.tell({"RELOADING": "1", "MONOTONIC_USEC": str(now)})
        try:
            what()
        finally:
            if self._ready:
                self._ready = False
                self._tell()

    def stop(self) -> None:
        """Tell that we are about to go, and nothing more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
            self._manager.tell({"STOPPING": "1", "STATUS": "answering what is in flight, then stopping"})

    @property
    def _pause(self) -> float:
        if not self._ready:
            return FIRST_BEAT
        return BEAT if self._manager.watchdog is None else min(BEAT, self._manager.watchdog / WITHIN)

    def _beat(self) -> None:
        self._tell()
        self._next = self._clock.callLater(self._pause, self._beat)

    def _tell(self) -> None:
        ready = self._ready or self._asked()
        said: dict[str, str] = {}
        if ready and self._manager.watchdog is not None:
            said["WATCHDOG"] = "1"
        if ready and not self._ready:
            said["READY"] = "1"
        status = self._said(ready=ready)
        if status != self._status:
            said["STATUS"] = status
        if said and self._manager.tell(said):
            self._ready, self._status = ready, status

    def _said(self, *, ready: bool) -> str:
        """Say in a line how we stand."""
        states = Counter(view.state for view in self._snapshot())
        hosts = counted(states.total(), "host")
        if not ready:
            return f"looking at {hosts} for the first time"
        how = ", ".join(f"{states[state]} {state}" for state in State if states[state])
        alone = "; does not know what other replicas have promised" if self._degraded() else ""
        return f"{hosts}: {how}{alone}" if how else f"{hosts}{alone}"
