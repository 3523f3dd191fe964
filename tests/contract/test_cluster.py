"""What we conclude of the members of an LXD cluster, each of which lists the instances of all."""

from __future__ import annotations

import pytest
import pytest_twisted

from lxdsched.fleet import host
from lxdsched.fleet.fleet import Fleet
from lxdsched.fleet.settings import HostSettings, Patience
from lxdsched.model import Placement, Reason, State
from lxdsched.sandbox.certs import KeyPair
from tests.contract.conftest import Lxd
from tests.support import ANSWERING, decided, demand, eventually, host_settings, pinned, running_fleet, until

SMALL = {"limits.cpu": "1", "limits.memory": "1GiB"}


@pytest_twisted.ensureDeferred
async def test_each_instance_counts_once_on_the_member_that_holds_it(
    members: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    driver = members[0].driver
    await driver.create("a", config=SMALL, target="k1")
    await driver.create("b", config=SMALL, target="k2")
    await driver.create("c", config=SMALL, target="k2")
    async with running_fleet(hosts_of(members, scheduler_pair)) as fleet:
        views = await fleet.views()
        assert [view.name for view in views] == ["k1", "k2", "k3"]
        assert all(view.state in ANSWERING for view in views)
        assert all(view.capacity is not None and view.capacity.clustered for view in views)
        assert [view.allocation.counted for view in views] == [1, 2, 0]
        assert [view.allocation.resources.cpu for view in views] == [1000, 2000, 0]
        placed = await decided(fleet, demand())
    assert isinstance(placed, Placement)
    assert placed.view.host == members[2].url


def states(fleet: Fleet) -> list[State]:
    return [view.state for view in fleet.snapshot()]


def hosts_of(members: tuple[Lxd, ...], pair: KeyPair) -> list[HostSettings]:
    return [host_settings(member.url, pair, pinned(member.fingerprint)) for member in members]


@pytest_twisted.ensureDeferred
async def test_an_evacuated_member_is_left_alone_until_it_is_restored(
    members: tuple[Lxd, ...], scheduler_pair: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "MEMBERSHIP", 0.5)
    driver = members[0].driver
    await driver.create("a", config=SMALL, target="k1")
    await driver.create("c", config=SMALL, target="k3")
    async with running_fleet(hosts_of(members, scheduler_pair)) as fleet:
        await until(fleet, State.LIVE)
        await driver.evacuate("k2")
        await eventually(lambda: states(fleet) == [State.LIVE, State.DRAINED, State.LIVE], lambda: states(fleet))
        assert "its cluster says that it is Evacuated" in (fleet.snapshot()[1].reason or "")
        placed = await decided(fleet, demand())
        assert isinstance(placed, Placement)
        assert placed.view.host != members[1].url
        assert placed.excluded is not None
        assert placed.excluded[members[1].url].reason is Reason.DRAINED
        await driver.restore("k2")
        await until(fleet, State.LIVE)
        placed = await decided(fleet, demand())
        assert isinstance(placed, Placement)
        assert placed.view.host == members[1].url


@pytest_twisted.ensureDeferred
async def test_a_member_whose_cluster_places_nothing_there_by_itself_is_left_alone(
    members: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    driver = members[0].driver
    async with running_fleet(hosts_of(members, scheduler_pair)) as fleet:
        await until(fleet, State.LIVE)
        await driver.set_member_config("k3", {"scheduler.instance": "manual"})
        await eventually(lambda: states(fleet) == [State.LIVE, State.LIVE, State.DRAINED], lambda: states(fleet))
        assert fleet.snapshot()[2].reason == (
            "its cluster places no instances there by itself: scheduler.instance=manual"
        )
        await driver.set_member_config("k3", {"scheduler.instance": None})
        await until(fleet, State.LIVE)


@pytest_twisted.ensureDeferred
async def test_the_drain_key_of_a_cluster_means_all_members_or_those_that_it_names(
    members: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    driver = members[1].driver
    async with running_fleet(hosts_of(members, scheduler_pair)) as fleet:
        await until(fleet, State.LIVE)
        await driver.set_server_config({"user.lxdsched.drain": "k1, k3"})
        await eventually(lambda: states(fleet) == [State.DRAINED, State.LIVE, State.DRAINED], lambda: states(fleet))
        await driver.set_server_config({"user.lxdsched.drain": "true"})
        await until(fleet, State.DRAINED)
        await driver.set_server_config({"user.lxdsched.drain": None})
        await until(fleet, State.LIVE)


@pytest_twisted.ensureDeferred
async def test_what_happens_on_any_member_is_heard_whoever_was_asked_to_do_it(
    members: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    def counts() -> list[int]:
        return [view.allocation.counted for view in fleet.snapshot()]

    driver = members[0].driver
    async with running_fleet(hosts_of(members, scheduler_pair), Patience(poll=86400)) as fleet:
        await until(fleet, State.LIVE)
        await driver.create("b", config=SMALL, target="k2", startable=True)
        await eventually(lambda: counts() == [0, 1, 0], counts)
        await driver.create_profile("small", SMALL)
        await driver.set_profiles("b", ["default", "small"])
        await driver.start("b")
        await members[2].driver.freeze("b")
        await eventually(lambda: counts() == [0, 0, 0], counts)
        await members[2].driver.unfreeze("b")
        await eventually(lambda: counts() == [0, 1, 0], counts)
        await driver.set_config("b", {"limits.cpu": None})
        await members[2].driver.set_profile("small", {"limits.cpu": "2"})
        await eventually(lambda: fleet.snapshot()[1].allocation.resources.cpu == 2000)
        await driver.stop("b")
        await members[1].driver.delete("b")
        await eventually(lambda: counts() == [0, 0, 0], counts)


@pytest_twisted.ensureDeferred
async def test_a_member_that_dies_takes_no_other_with_it(members: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    await members[0].driver.create("a", config=SMALL, target="k1")
    await members[0].driver.create("c", config=SMALL, target="k3")
    async with running_fleet(hosts_of(members, scheduler_pair)) as fleet:
        await fleet.views()
        await members[2].kill()
        views = await fleet.views()
        assert all(view.state in ANSWERING for view in views[:2])
        assert views[2].state is State.UNREACHABLE
        assert [view.allocation.counted for view in views] == [1, 0, 1]
        placed = await decided(fleet, demand())
    await members[2].revive()
    assert isinstance(placed, Placement)
    assert placed.view.host == members[1].url
