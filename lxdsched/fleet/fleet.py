"""All hosts of the configuration, asked at once and each at its own pace."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from lxdsched.fleet.alarm import alarm
from lxdsched.fleet.host import Host
from lxdsched.model import View


class Fleet:
    """All hosts, in the order of the configuration.

    A request waits for them for `patience` seconds at most: what a host has not said by then is not known.
    """

    def __init__(self, hosts: Iterable[Host], clock: IReactorTime, patience: float) -> None:
        self._hosts = {host.settings.host: host for host in hosts}
        self._clock = clock
        self._patience = patience

    @property
    def asked(self) -> bool:
        """Whether every host has been asked once, and has answered or missed its deadline."""
        return all(host.asked for host in self._hosts.values())

    def start(self) -> None:
        """Begin to look at the hosts, all at once."""
        for host in self._hosts.values():
            host.start()

    async def stop(self) -> None:
        """Ask no host any more, and drop every connection."""
        for host in self._hosts.values():
            await host.stop()

    def snapshot(self) -> Sequence[View]:
        """Say what is known of every host, without asking any."""
        return [host.view() for host in self._hosts.values()]

    async def views(self, targets: Collection[str] | None = None) -> Sequence[View]:
        """Ask the hosts that are in the running, and say what is known then of all of these hosts.

        `targets` names the hosts that matter; None means all.
        """
        hosts = [host for name, host in self._hosts.items() if targets is None or name in targets]
        waiting = [waiter for host in hosts if (waiter := host.refresh()) is not None]
        if waiting:
            await self._together(waiting)
        return [host.view() for host in hosts]

    async def _together(self, waiting: Sequence[Deferred[None]]) -> None:
        # A waiter fails only by being cancelled: by us here, or because whoever asks has gone.
        together = DeferredList(waiting, consumeErrors=True)

        def give_up() -> None:
            for waiter in waiting:
                waiter.cancel()

        with alarm(self._clock, self._patience, give_up):
            await together
