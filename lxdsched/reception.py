"""Where clients come in: the doors, who is let through them, and what is read again about that while they are open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import thread_time

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.resource import IResource

from lxdsched.access import Clients, Shown, Stranger
from lxdsched.certificates import Expiry, OurCertificate
from lxdsched.config import Config, Guard
from lxdsched.listener.crowd import Crowd
from lxdsched.listener.ports import Door
from lxdsched.listener.reach import exposure
from lxdsched.listener.tls import ServerTls
from lxdsched.listener.turns import Turns
from lxdsched.reload import Reload
from lxdsched.web.access import Gate
from lxdsched.web.site import HEALTH, BoundedSite

METRICS = frozenset({b"/metrics"})


class Reception:
    """Serves a resource to those who may ask for it, from `open` until `stop`.

    `crowd` are those who come in at the first door. Who only watches may have a door and `watchers` of its own, and is
    let in while others besiege the first one. `failed` is told the code of every error that is answered, `wall` tells
    the time of day in seconds since the epoch.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        resource: IResource,
        *,
        crowd: Crowd,
        watchers: Crowd,
        failed: Callable[[str], None],
        expiry: Expiry,
        reactor: IReactorTime,
        wall: Callable[[], float],
    ) -> None:
        listening, guard = config.listening, config.guard
        self._ours: Sequence[OurCertificate] = config.certificates
        self._guards: Sequence[OurCertificate] = guard.certificates
        self._expiry = expiry
        self._wall = wall
        self._gate = Gate(guard.clients, wall, HEALTH | METRICS if listening.metrics_open else HEALTH)
        self._tls = None if guard.tls is None else ServerTls(guard.tls, self._known)
        self._reload = Reload(config, reactor, self._take)
        turns = Turns(reactor, thread_time)
        self._site = BoundedSite(
            resource, reactor, bounds=config.bounds, crowd=crowd, turns=turns, gate=self._gate, failed=failed
        )
        self._sites = [self._site]
        self._doors = [Door(reactor, listening.endpoint, self._site, crowd=crowd, turns=turns, tls=self._tls)]
        if listening.metrics_endpoint is not None:
            # Who looks after us does not wait for those who want something of us.
            turns = Turns(reactor, thread_time)
            site = BoundedSite(
                resource,
                reactor,
                bounds=config.bounds,
                crowd=watchers,
                turns=turns,
                gate=Gate(None, wall, HEALTH),
                paths=HEALTH | METRICS,
                failed=failed,
            )
            self._sites.append(site)
            door = Door(reactor, listening.metrics_endpoint, site, crowd=watchers, turns=turns, tls=None)
            self._doors.append(door)

    @property
    def port(self) -> int:
        """The TCP port of the first door; 0 before it is open, and where it has none."""
        return self._doors[0].port

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the doors are, as people write it."""
        return tuple(door.shown for door in self._doors)

    def open(self) -> None:
        """Open the doors. ListenError when that cannot be."""
        for door in self._doors:
            door.open()

    def start(self) -> None:
        """Say who may come in, and begin to watch what that depends on."""
        door, guarded = self._doors[0], self._gate.clients is not None
        warning = exposure(door.shown, guarded=guarded, secure=self._tls is not None)
        if warning is not None and not door.local:
            self._log.warn("{log_said}", log_said=warning, address=door.shown)
        self._expiry.start()
        self._reload.start()

    def reload(self) -> None:
        """Read again who may come in, and how."""
        self._reload.now()

    def renew(self, certificates: Sequence[OurCertificate]) -> None:
        """Take note of which certificates of ours are in use beside those of the doors."""
        self._ours = certificates
        self._expire()

    async def stop(self, seconds: float) -> None:
        """Let nobody in any more, and answer what is in flight, for some seconds at most."""
        self._reload.stop()
        self._expiry.stop()
        for door in self._doors:
            await door.close()
        await DeferredList([Deferred.fromCoroutine(site.drain(seconds)) for site in self._sites])

    def _take(self, guard: Guard) -> None:
        self._gate.clients = guard.clients
        if self._tls is not None and guard.tls is not None and self._tls.take(guard.tls):
            self._site.renew()
        self._guards = guard.certificates
        self._expire()

    def _expire(self) -> None:
        self._expiry.certificates = (*self._ours, *self._guards)

    def _known(self, shown: Shown) -> bool:
        clients = self._gate.clients or Clients()
        try:
            clients.by_certificate(shown, datetime.fromtimestamp(self._wall(), UTC))
        except Stranger:
            return False
        return True
