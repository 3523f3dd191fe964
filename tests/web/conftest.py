"""The HTTP API over a small simulated fleet, on a port of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred

from lxdsched.fleet.fleet import Fleet
from lxdsched.fleet.settings import Patience
from lxdsched.ledger.memory import MemoryLedger
from lxdsched.listener.admission import CONNECTING, Admission
from lxdsched.listener.crowd import Crowd
from lxdsched.listener.settings import Bounds
from lxdsched.metrics import Metrics
from lxdsched.sandbox.certs import KeyPair, make_certificate
from lxdsched.sandbox.records import Hardware
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from lxdsched.scheduler import Scheduler
from lxdsched.strategies import BUILT_IN
from lxdsched.web.access import Gate
from lxdsched.web.app import Api
from lxdsched.web.site import HEALTH, BoundedSite
from tests.support import host_settings, pinned, running_fleet, the_reactor


@dataclass(frozen=True)
class Served:
    """A running API: where it is, and what is behind it."""

    port: int
    site: BoundedSite
    fleet: Fleet
    hosts: tuple[SandboxServer, ...]

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def keys() -> tuple[KeyPair, KeyPair]:
    """The scheduler's and the hosts' certificates."""
    now = datetime.now(UTC)
    return make_certificate("scheduler", now=now, client=True), make_certificate("node", now=now)


@pytest_twisted.async_yield_fixture
async def served(keys: tuple[KeyPair, KeyPair]) -> AsyncIterator[Served]:
    """Serve the API over two hosts: node-1 with 4 cores, 1 of them allocated, and node-2 with 8 cores, 3 allocated."""
    reactor = the_reactor()
    pair, server_pair = keys
    hosts = []
    for name, cpus, used in (("node-1", 4, 1), ("node-2", 8, 3)):
        state = ServerState(name, Hardware(threads=cpus, memory=16 * 1024**3))
        state.trust(pair.certificate)
        state.add_instance("job", {"limits.cpu": str(used), "limits.memory": "2GiB"})
        server = SandboxServer(state, reactor, keypair=server_pair)  # type: ignore[arg-type]
        await server.start()
        hosts.append(server)
    settings = [host_settings(server.url, pair, pinned(server_pair.fingerprint)) for server in hosts]
    async with running_fleet(settings, Patience(question=1.0, probe_first=0.05, probe_most=0.1)) as fleet:
        strategies = {strategy.name: strategy for strategy in BUILT_IN[:2]}
        ledger = MemoryLedger(reactor, 120.0)
        scheduler = Scheduler(fleet, ledger, BUILT_IN[0], strategies, Random(1))
        bounds = Bounds()
        crowd = Crowd(bounds, reactor.seconds)
        metrics = Metrics(scheduler.snapshot, ledger, crowds=[crowd])
        api = Api(scheduler, ledger, metrics, asked=lambda: fleet.asked, clock=reactor.seconds, wall=reactor.seconds)
        gate = Gate(None, time.time, HEALTH)  # noqa: TID251  # the keys of the tests are dated by it
        site = BoundedSite(api.resource(), reactor, bounds=bounds, crowd=crowd, gate=gate, failed=metrics.failed)
        admission = Admission(site, site.crowd, reactor.seconds, CONNECTING)
        port = reactor.listenTCP(0, admission, interface="127.0.0.1")  # type: ignore[arg-type]
        yield Served(port.getHost().port, site, fleet, tuple(hosts))  # type: ignore[attr-defined]
        await maybeDeferred(port.stopListening)
        await site.drain(1.0)
        await ledger.stop()
    for server in hosts:
        await server.stop()
