"""The one place where the parts are wired together, and the order in which they start and stop."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from ipaddress import ip_address
from os import getpid
from random import Random, SystemRandom
from socket import gethostname
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorCore, IReactorFromThreads, IReactorTCP, IReactorTime
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from lxdsched import __version__
from lxdsched.config import Config
from lxdsched.fleet.client import HostClient
from lxdsched.fleet.contacts import Contacts
from lxdsched.fleet.fleet import Fleet
from lxdsched.fleet.host import Host
from lxdsched.fleet.settings import Counting, HostSettings, Patience
from lxdsched.ledger.book import Ledger
from lxdsched.ledger.exchange import script
from lxdsched.ledger.link import Link
from lxdsched.ledger.memory import MemoryLedger
from lxdsched.ledger.redis import RedisLedger
from lxdsched.listener.admission import CONNECTING, Admission
from lxdsched.listener.crowd import Crowd
from lxdsched.metrics import Metrics
from lxdsched.names import Names
from lxdsched.scheduler import Scheduler
from lxdsched.strategies import Strategy
from lxdsched.tls import FirstUse
from lxdsched.web.app import Api
from lxdsched.web.site import BoundedSite

_log = Logger()


class Reactor(IReactorCore, IReactorFromThreads, IReactorTCP, IReactorTime):
    """What the daemon needs of a reactor."""


class Daemon(Service):
    """The whole daemon: starts listening and looking at the fleet, stops without losing a request."""

    name = "lxdsched"
    _log = Logger()

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        ledger: Ledger,
        site: BoundedSite,
        *,
        reactor: Reactor,
        observer: ILogObserver | None,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._ledger = ledger
        self._site = site
        self._reactor = reactor
        self._observer = observer
        self._port: IListeningPort | None = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on; 0 before it is."""
        return 0 if self._port is None else int(cast(IPv4Address, self._port.getHost()).port)

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802
        """Join the application, and have twistd log as we do."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:  # noqa: N802
        """Begin to listen, while ports below 1024 may still be had. SystemExit when that cannot be."""
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:  # noqa: N802
        """Begin to look at the fleet, and to answer."""
        super().startService()
        self._listen()
        for warning in self._config.warnings:
            self._log.warn("{warning}", warning=warning)
        host = self._config.interface
        self._log.info(
            "lxdsched {version} listens on http://{address}; hosts: {hosts}",
            version=__version__,
            address=f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}",
            hosts=len(self._config.hosts),
            strategy=self._config.strategy,
            **({} if self._config.redis is None else {"redis": self._config.redis.shown}),
        )
        if not ip_address(host).is_loopback:
            self._log.warn(
                "there is no access control: whoever reaches {interface} port {port} may schedule and see the fleet",
                interface=host,
                port=self.port,
            )
        self._ledger.start()
        self._fleet.start()
        # What was made until now stays: the collector need not look at it again while requests wait.
        gc.collect()
        gc.freeze()

    def stopService(self) -> Deferred[None]:  # noqa: N802
        """Take no new connection, answer what is in flight, then leave the fleet."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
            self._port = None
        await self._site.drain(self._config.stop_timeout)
        await self._fleet.stop()
        await self._ledger.stop()

    def _listen(self) -> None:
        if self._port is not None:
            return
        try:
            admission = Admission(self._site, self._site.crowd, self._reactor.seconds, CONNECTING)
            self._port = self._reactor.listenTCP(
                self._config.port, cast(Any, admission), interface=self._config.interface, backlog=1024
            )
        except CannotListenError as error:
            raise SystemExit(f"lxdsched: cannot listen: {error}") from None


def build(
    config: Config,
    strategies: Mapping[str, Strategy],
    reactor: Reactor,
    wall: Callable[[], float],
    observer: ILogObserver | None = None,
) -> Daemon:
    """Put the daemon together.

    `strategies` are all there are, by name; `wall` tells the time of day in seconds since the epoch; `observer` is
    where twistd shall log.
    """
    random = SystemRandom()
    fleet = build_fleet(config.hosts, config.patience, config.counting, reactor, random)
    allowed = {name: strategies[name] for name in config.allow_strategies}
    ledger = build_ledger(config, reactor, random)
    scheduler = Scheduler(fleet, ledger, strategies[config.strategy], allowed, random)
    metrics = Metrics(scheduler.snapshot, ledger)
    api = Api(
        scheduler,
        ledger,
        metrics,
        asked=lambda: fleet.asked and ledger.settled,
        clock=reactor.seconds,
        wall=wall,
    )
    crowd = Crowd(config.bounds, reactor.seconds)
    site = BoundedSite(api.resource(), reactor, config.bounds, crowd)
    return Daemon(config, fleet, ledger, site, reactor=reactor, observer=observer)


def build_ledger(config: Config, reactor: Reactor, random: Random) -> Ledger:
    """Put the ledger together: one that is shared where there is a Redis, else one of this process alone."""
    settings = config.redis
    if settings is None:
        return MemoryLedger(reactor, config.reservation_ttl)
    return RedisLedger(
        reactor,
        config.reservation_ttl,
        partial(Link, reactor, reactor, settings, script()),
        prefix=settings.prefix,
        patience=settings.timeout,
        refuse=config.on_ledger_failure == "refuse",
        by=f"{gethostname()}:{getpid()}",
        random=random,
    )


def build_fleet(
    hosts: Iterable[HostSettings], patience: Patience, counting: Counting, reactor: Reactor, random: Random
) -> Fleet:
    """Put a fleet together, each host with a client and a trust of its own."""
    contacts = Contacts(reactor)
    names = Names(reactor.callFromThread)

    def host(settings: HostSettings) -> Host:
        trust = settings.trust or FirstUse(partial(_advise, settings.host))
        client = HostClient(reactor, names, settings, trust, patience)
        return Host(settings, client, reactor, patience=patience, counting=counting, contacts=contacts, random=random)

    return Fleet(map(host, hosts), reactor, patience.question)


def _advise(host: str, fingerprint: str) -> None:
    _log.warn(
        "host {host} is trusted on first use; to pin it, set its fingerprint to {fingerprint}",
        host=host,
        fingerprint=fingerprint,
    )
