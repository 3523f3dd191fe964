"""Builds fleets for tests, as the daemon builds its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import cast

from twisted.internet.task import deferLater

from lxdsched.fleet.fleet import Fleet
from lxdsched.fleet.settings import Counting, HostSettings, Patience
from lxdsched.ledger.memory import MemoryLedger
from lxdsched.model import Demand, Placement, Refusal, Resources, State, View
from lxdsched.sandbox.certs import KeyPair
from lxdsched.scheduler import Scheduler
from lxdsched.service import HostMaker, Reactor
from lxdsched.strategies import BUILT_IN
from lxdsched.tls import Identity, Pinned, Trust
from lxdsched.trust.keeper import Keeper

GIB = 1024**3

ANSWERING = (State.LIVE, State.POLLED)
"""The states of a host with which nothing is wrong."""

BRISK = Patience(probe_first=0.05, probe_most=0.2)
"""Patience for tests that wait for a host to return."""


def the_reactor() -> Reactor:
    """Return the reactor that runs the tests."""
    from twisted.internet import reactor  # noqa: TID251  # importing it installs it

    return cast(Reactor, reactor)


def write_secret(path: Path, content: str | bytes) -> Path:
    """Write a file that nobody else may read, whatever the umask; return it."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pinned(fingerprint: str) -> Trust:
    """Trust exactly this certificate."""
    return Pinned(frozenset({fingerprint}))


def host_settings(url: str, pair: KeyPair, trust: Trust | None = None) -> HostSettings:
    """Configure a host as whom we come with `pair`."""
    return HostSettings(url, url, Identity(pair.certificate, pair.key), trust)


@asynccontextmanager
async def running_fleet(
    hosts: Iterable[HostSettings],
    patience: Patience = BRISK,
    counting: Counting | None = None,
    keeper: Keeper | None = None,
) -> AsyncIterator[Fleet]:
    """Run a fleet of these hosts, and leave nothing of it behind."""
    make = HostMaker(patience, counting or Counting(), the_reactor(), Random(1), keeper=keeper)
    fleet = Fleet(map(make, hosts), the_reactor(), patience.question)
    if keeper is not None:
        keeper.start()
    fleet.start()
    try:
        yield fleet
    finally:
        await fleet.stop()
        if keeper is not None:
            await keeper.stop()


async def only_view(fleet: Fleet) -> View:
    """Ask the fleet, which has one host, for its view."""
    (view,) = await fleet.views()
    return view


async def decided(fleet: Fleet, asked: Demand) -> Placement | Refusal:
    """Decide where a demand would go, and claim nothing."""
    scheduler = Scheduler(fleet, MemoryLedger(the_reactor(), 120.0), BUILT_IN[0], {}, Random(1))
    return await scheduler.schedule(asked, dry_run=True)


def demand(cores: int = 1, memory: int = GIB, **more: object) -> Demand:
    """Ask for whole cores and bytes."""
    return Demand(Resources(cores * 1000, memory), **more)  # type: ignore[arg-type]


async def eventually(condition: Callable[[], bool], what: Callable[[], object] = lambda: "it") -> None:
    """Wait until a condition holds; fail with `what` when it does not come to hold."""
    reactor = the_reactor()
    end = reactor.seconds() + 30
    while not condition():
        assert reactor.seconds() < end, f"waited in vain: {what()}"
        await deferLater(reactor, 0.02)


async def until(fleet: Fleet, state: State) -> None:
    """Wait until every host of the fleet is in this state, without asking any: the fleet finds out by itself."""
    await eventually(
        lambda: all(view.state is state for view in fleet.snapshot()),
        lambda: {view.host: (view.state, view.reason) for view in fleet.snapshot()},
    )
