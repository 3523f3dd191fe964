"""The one place where the parts are wired together, and the order in which they start and stop."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from functools import partial
from os import getpid
from random import Random, SystemRandom
from socket import gethostname
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads, IReactorTCP, IReactorTime
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from lxdsched import __version__
from lxdsched.certificates import Expiry
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
from lxdsched.listener.crowd import Crowd
from lxdsched.listener.ports import ListenError
from lxdsched.metrics import Metrics
from lxdsched.names import Names
from lxdsched.reception import Reception
from lxdsched.reload import HostsReload
from lxdsched.scheduler import Scheduler
from lxdsched.strategies import Strategy
from lxdsched.systemd.manager import Manager
from lxdsched.systemd.standing import Standing
from lxdsched.tls import FirstUse, Trust
from lxdsched.trust.directory import StoreError
from lxdsched.trust.file import TrustFile
from lxdsched.trust.keeper import Keeper
from lxdsched.trust.use import RememberedUse
from lxdsched.web.app import Api

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
        reception: Reception,
        *,
        observer: ILogObserver | None,
        keeper: Keeper | None = None,
        hosts: HostsReload,
        standing: Standing | None = None,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._ledger = ledger
        self._reception = reception
        self._observer = observer
        self._keeper = keeper
        self._standing = standing
        self._hosts = hosts

    @property
    def port(self) -> int:
        """The TCP port that is listened on; 0 before it is."""
        return self._reception.port

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802
        """Join the application, and have twistd log as we do."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:  # noqa: N802
        """Begin to listen, while ports below 1024 may still be had. SystemExit when that cannot be."""
        super().privilegedStartService()
        self._open()

    def startService(self) -> None:  # noqa: N802
        """Begin to look at the fleet, and to answer."""
        super().startService()
        self._open()
        for warning in self._config.warnings:
            self._log.warn("{log_said}", log_said=warning)
        self._log.info(
            "lxdsched {version} listens on {address}; hosts: {hosts}",
            version=__version__,
            address=", ".join(self._reception.addresses),
            hosts=len(self._config.hosts),
            strategy=self._config.strategy,
            **({} if self._config.redis is None else {"redis": self._config.redis.shown}),
        )
        self._reception.start()
        self._remember()
        self._ledger.start()
        self._fleet.start()
        if self._standing is not None:
            self._standing.start()
        # What was made until now stays: the collector need not look at it again while requests wait.
        gc.collect()
        gc.freeze()

    def reload(self) -> None:
        """Read again what may change while the daemon runs; the log says how that went."""
        if self._standing is None:
            self._read_again()
        else:
            self._standing.reload(self._read_again)

    def stopService(self) -> Deferred[None]:  # noqa: N802
        """Take no new connection, answer what is in flight, then leave the fleet."""
        super().stopService()
        if self._standing is not None:
            self._standing.stop()
        return Deferred.fromCoroutine(self._stop())

    def _read_again(self) -> None:
        self._reception.reload()
        self._hosts.now()

    async def _stop(self) -> None:
        await self._reception.stop(self._config.stop_timeout)
        await self._fleet.stop()
        await self._ledger.stop()
        if self._keeper is not None:
            await self._keeper.stop()

    def _remember(self) -> None:
        # Here, and not before: by now twistd is the user who shall own what is written.
        try:
            if self._keeper is not None:
                self._keeper.start()
        except StoreError as error:
            raise SystemExit(f"lxdsched cannot start: {error}") from None

    def _open(self) -> None:
        try:
            self._reception.open()
        except ListenError as error:
            raise SystemExit(f"lxdsched: {error}") from None


def build(
    config: Config,
    strategies: Mapping[str, Strategy],
    reactor: Reactor,
    wall: Callable[[], float],
    *,
    observer: ILogObserver | None = None,
    manager: Manager | None = None,
) -> Daemon:
    """Put the daemon together.

    `strategies` are all there are, by name; `wall` tells the time of day in seconds since the epoch; `observer` is
    where twistd shall log; `manager` is who wants to know how the service stands.
    """
    random = SystemRandom()
    keeper = None
    if config.state_directory is not None:
        keeper = Keeper(TrustFile(config.state_directory), reactor, reactor.callFromThread, wall)
    make = HostMaker(config.patience, config.counting, reactor, random, keeper=keeper)
    fleet = Fleet(map(make, config.hosts), reactor, config.patience.question)
    allowed = {name: strategies[name] for name in config.allow_strategies}
    ledger = build_ledger(config, reactor, random)
    scheduler = Scheduler(fleet, ledger, strategies[config.strategy], allowed, random)
    expiry = Expiry((*config.certificates, *config.guard.certificates), reactor, wall)
    crowd, watchers = Crowd(config.bounds, reactor.seconds), Crowd(config.bounds, reactor.seconds)

    def asked() -> bool:
        return fleet.asked and ledger.settled

    metrics = Metrics(scheduler.snapshot, ledger, lambda: expiry.certificates, (crowd, watchers))
    api = Api(
        scheduler,
        ledger,
        metrics,
        asked=asked,
        clock=reactor.seconds,
        wall=wall,
        certificates=lambda: expiry.certificates,
    )
    reception = Reception(
        config,
        api.resource(),
        crowd=crowd,
        watchers=watchers,
        failed=metrics.failed,
        expiry=expiry,
        reactor=reactor,
        wall=wall,
    )
    standing = None
    if manager is not None:
        standing = Standing(
            manager, reactor, asked=asked, snapshot=scheduler.snapshot, degraded=lambda: ledger.degraded
        )
    hosts = HostsReload(config, fleet, make, reception.renew)
    return Daemon(config, fleet, ledger, reception, observer=observer, keeper=keeper, hosts=hosts, standing=standing)


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


class HostMaker:
    """Makes the hosts of a fleet, each with a client and a trust of its own. `keeper` remembers those met before."""

    def __init__(
        self,
        patience: Patience,
        counting: Counting,
        reactor: Reactor,
        random: Random,
        *,
        keeper: Keeper | None = None,
    ) -> None:
        self._patience = patience
        self._counting = counting
        self._reactor = reactor
        self._random = random
        self._keeper = keeper
        self._contacts = Contacts(reactor)
        self._names = Names(reactor.callFromThread)
        self._first_uses: dict[str, Trust] = {}  # for as long as we run: of a host that changes too

    def __call__(self, settings: HostSettings) -> Host:
        """Make a host."""
        trust = settings.trust or self._first_use(settings)
        client = HostClient(self._reactor, self._names, settings, trust, self._patience)
        made = Host(
            settings,
            client,
            self._reactor,
            patience=self._patience,
            counting=self._counting,
            contacts=self._contacts,
            random=self._random,
        )
        if settings.trust is None and self._keeper is not None:
            self._keeper.watch(settings.url, made.reconsider)
        return made

    def _first_use(self, settings: HostSettings) -> Trust:
        if self._keeper is not None:
            return RememberedUse(self._keeper, settings.host, settings.url)
        known = self._first_uses.get(settings.url)
        if known is None:
            known = self._first_uses[settings.url] = FirstUse(partial(_advise, settings.host))
        return known


def _advise(host: str, fingerprint: str) -> None:
    _log.warn(
        "host {host} is trusted on first use; to pin it, set its fingerprint to {fingerprint}",
        host=host,
        fingerprint=fingerprint,
    )
