"""All hosts of the configuration, each at its own pace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lxdsched.alarm import alarm
from lxdsched.fleet.host import Host
from lxdsched.model import View


class Fleet:
    """All hosts, in the order in which they came in, those of the configuration first.

    A request waits for them for `patience` seconds at most: what a host has not said by then is not known.
    """

    _log = Logger()

    def __init__(self, hosts: Iterable[Host], clock: IReactorTime, patience: float) -> None:
        self._hosts = {host.settings.host: host for host in hosts}
        self._clock = clock
        self._patience = patience
        self._coming: dict[str, Host] = {}  # until they were asked: by then they come in, and whom they replace goes
        self._leaving: set[Deferred[None]] = set()
        self._unsettled = dict(self._hosts)
        self._shown: dict[str, View] = {}
        self._show: Callable[[View], None] = lambda _view: None
        self._gone: Callable[[str], None] = lambda _name: None
        for host in self._hosts.values():
            host.changed = self._changed

    @property
    def asked(self) -> bool:
        """Whether every host has been asked once, and has answered or missed its deadline."""
        return all(host.asked for host in self._hosts.values())

    def watch(self, show: Callable[[View], None], gone: Callable[[str], None] = lambda _name: None) -> None:
        """Have `show` called with every host's view now and each that changes from then on, `gone` when a host goes."""
        self._show, self._gone = show, gone
        for host in self._hosts.values():
            show(host.view)

    def start(self) -> None:
        """Begin to look at the hosts, all at once."""
        for host in self._hosts.values():
            host.start()

    def change(self, coming: Iterable[Host], leaving: Iterable[str]) -> None:
        """Let some hosts go, and others come in as soon as they were asked, for those of the same name that are there.

        So nobody is told of a host of which nothing is known, and none is away while it only changes.
        """
        for name in leaving:
            self._put_off(name)
            if (host := self._hosts.pop(name, None)) is not None:
                self._unsettled.pop(name, None)
                self._shown.pop(name, None)
                self._let_go(host)
                self._gone(name)
        for host in coming:
            self._put_off(host.settings.host)
            self._coming[host.settings.host] = host
            host.changed = self._changed
            host.start()

    async def stop(self) -> None:
        """Ask no host any more, and drop every connection."""
        for host in (*self._hosts.values(), *self._coming.values()):
            await host.stop()
        await DeferredList(list(self._leaving))

    def snapshot(self) -> Sequence[View]:
        """Say what is known of every host, without asking any."""
        return [host.view for host in self._hosts.values()]

    async def refresh(self, targets: Collection[str] | None = None) -> None:
        """Bring these hosts' views up to date, as far as they answer in time; None means all.

        A fleet that is live costs nothing.
        """
        hosts = [host for name, host in self._unsettled.items() if targets is None or name in targets]
        waiters = {host: waiter for host in hosts if (waiter := host.refresh()) is not None}
        if waiters:
            await self._together(list(waiters), list(waiters.values()))

    async def views(self, targets: Collection[str] | None = None) -> Sequence[View]:
        """Bring these hosts' views up to date and return them."""
        await self.refresh(targets)
        return [host.view for name, host in self._hosts.items() if targets is None or name in targets]

    def _changed(self, host: Host) -> None:
        name = host.settings.host
        if self._hosts.get(name) is not host and not self._comes_in(name, host):
            return
        if host.settled:
            self._unsettled.pop(name, None)
        else:
            self._unsettled[name] = host
        if self._shown.get(name) is not host.view:
            self._shown[name] = host.view
            self._show(host.view)

    def _comes_in(self, name: str, host: Host) -> bool:
        if self._coming.get(name) is not host:
            return False
        del self._coming[name]
        if (before := self._hosts.get(name)) is not None:
            self._let_go(before)
        self._hosts[name] = host
        return True

    def _put_off(self, name: str) -> None:
        """Have a host that was about to come in stay away."""
        if (host := self._coming.pop(name, None)) is not None:
            self._let_go(host)

    def _let_go(self, host: Host) -> None:
        host.changed = lambda _host: None
        going = Deferred.fromCoroutine(host.stop())
        self._leaving.add(going)
        going.addErrback(lambda failure: self._log.failure("a host was not let go as it should", failure))
        going.addBoth(lambda _: self._leaving.discard(going))

    async def _together(self, hosts: Sequence[Host], waiting: Sequence[Deferred[None]]) -> None:
        # A waiter fails only by being cancelled: by us here, or because whoever asks has gone.
        together = DeferredList(waiting, consumeErrors=True)
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            for host, waiter in zip(hosts, waiting, strict=True):
                if not waiter.called:
                    host.give_up()
                waiter.cancel()

        with alarm(self._clock, self._patience, give_up):
            ended = await together
        if not late and not all(up_to_date for up_to_date, _ in ended):
            # Whoever asks has gone: a DeferredList that is cancelled says so by its waiters alone.
            raise CancelledError
