"""A member of a real cluster that hangs: its connections stay open, and the other members' listings hang with it."""

from __future__ import annotations

import pytest
import pytest_twisted

from lxdsched.fleet.settings import Patience
from lxdsched.model import Placement, State
from lxdsched.sandbox.certs import KeyPair
from tests.lxd.cluster import LxdCluster
from tests.support import decided, demand, eventually, host_settings, pinned, running_fleet, the_reactor, until

SMALL = {"limits.cpu": "1", "limits.memory": "1GiB"}
WATCHED = 5.0
"""Seconds for which the others have to go on being chosen."""


@pytest.fixture(
    params=[
        pytest.param("fresh_cluster", marks=pytest.mark.real_lxd, id="lxd"),
        pytest.param("fresh_incus_cluster", marks=pytest.mark.real_incus, id="incus"),
    ]
)
def cluster(request: pytest.FixtureRequest) -> LxdCluster:
    """Three members, in service and swept clean."""
    found: LxdCluster = request.getfixturevalue(request.param)
    return found


@pytest_twisted.ensureDeferred
async def test_the_others_go_on_being_chosen(cluster: LxdCluster, scheduler_pair: KeyPair) -> None:
    one, two, hung = cluster.daemons
    await cluster.drivers[0].trust(scheduler_pair.cert_pem, name="scheduler")
    await cluster.drivers[0].create("a", config=SMALL, target=one.name)
    # Only for instances of its own is the hung member asked by the others.
    await cluster.drivers[0].create("c", config=SMALL, target=hung.name)
    hosts = [host_settings(daemon.url, scheduler_pair, pinned(daemon.fingerprint)) for daemon in cluster.daemons]
    patience = Patience(question=1.0, ping=0.5, poll=1.0, probe_first=0.1, probe_most=0.5, stale=60.0)
    async with running_fleet(hosts, patience) as fleet:
        await until(fleet, State.LIVE)
        hung.suspend()
        try:
            await eventually(lambda: fleet.snapshot()[2].state is State.UNREACHABLE)
            end, chosen, seen = the_reactor().seconds() + WATCHED, [], set()
            while the_reactor().seconds() < end:
                placed = await decided(fleet, demand())
                assert isinstance(placed, Placement), placed
                chosen.append(placed.view.host)
                seen |= {view.state for view in fleet.snapshot()[:2]}
            assert set(chosen) <= {one.url, two.url}
            # The one without an instance is the better one, as long as both are known equally well.
            assert chosen.count(two.url) > 0
            assert seen <= {State.LIVE, State.POLLED, State.STALE}
        finally:
            hung.resume()
        await until(fleet, State.LIVE)
