"""What we conclude of the members of an LXD cluster, each of which lists the instances of all."""

from __future__ import annotations

from random import Random

import pytest_twisted

from lxdsched.model import Placement, State
from lxdsched.sandbox.certs import KeyPair
from lxdsched.scheduler import Scheduler
from lxdsched.strategies import BUILT_IN
from tests.contract.conftest import Lxd
from tests.support import demand, host_settings, pinned, running_fleet

SMALL = {"limits.cpu": "1", "limits.memory": "1GiB"}


@pytest_twisted.ensureDeferred
async def test_each_instance_counts_once_on_the_member_that_holds_it(
    members: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    driver = members[0].driver
    await driver.create("a", config=SMALL, target="k1")
    await driver.create("b", config=SMALL, target="k2")
    await driver.create("c", config=SMALL, target="k2")
    hosts = [host_settings(member.url, scheduler_pair, pinned(member.fingerprint)) for member in members]
    async with running_fleet(hosts) as fleet:
        views = await fleet.views()
        assert [(view.name, view.state) for view in views] == [("k1", "polled"), ("k2", "polled"), ("k3", "polled")]
        assert all(view.capacity is not None and view.capacity.clustered for view in views)
        assert [view.allocation.counted for view in views] == [1, 2, 0]
        assert [view.allocation.resources.cpu for view in views] == [1000, 2000, 0]
        placed = await Scheduler(fleet, BUILT_IN[0], {}, Random(1)).schedule(demand())
    assert isinstance(placed, Placement)
    assert placed.view.host == members[2].url


@pytest_twisted.ensureDeferred
async def test_a_member_that_dies_takes_no_other_with_it(members: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    await members[0].driver.create("a", config=SMALL, target="k1")
    await members[0].driver.create("c", config=SMALL, target="k3")
    hosts = [host_settings(member.url, scheduler_pair, pinned(member.fingerprint)) for member in members]
    async with running_fleet(hosts) as fleet:
        await fleet.views()
        await members[2].kill()
        views = await fleet.views()
        assert [view.state for view in views] == [State.POLLED, State.POLLED, State.UNREACHABLE]
        assert [view.allocation.counted for view in views] == [1, 0, 1]
        placed = await Scheduler(fleet, BUILT_IN[0], {}, Random(1)).schedule(demand())
    await members[2].revive()
    assert isinstance(placed, Placement)
    assert placed.view.host == members[1].url
