"""What we conclude of an LXD server from its own API."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest_twisted

from lxdsched.fleet.settings import Counting, HostSettings
from lxdsched.limits import Unlimited
from lxdsched.model import Placement, Refusal, Resources, State
from lxdsched.sandbox.certs import KeyPair, make_certificate
from tests.contract.conftest import Lxd
from tests.support import (
    ANSWERING,
    GIB,
    decided,
    demand,
    eventually,
    host_settings,
    only_view,
    pinned,
    running_fleet,
    until,
)

SMALL = {"limits.cpu": "1", "limits.memory": "1GiB"}


def settings(lxd: Lxd, pair: KeyPair) -> HostSettings:
    return host_settings(lxd.url, pair, pinned(lxd.fingerprint))


@pytest_twisted.ensureDeferred
async def test_a_host_tells_its_name_and_size(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    async with running_fleet([settings(lxds[0], scheduler_pair)]) as fleet:
        view = await only_view(fleet)
    assert view.state in ANSWERING
    assert view.capacity is not None
    assert view.name
    assert view.capacity.total.cpu == len(view.capacity.cpus) * 1000 > 0
    assert view.capacity.total.memory > GIB
    assert view.capacity.architectures
    assert view.capacity.instance_types
    assert not view.capacity.clustered
    assert view.allocation.instances == 0


@pytest_twisted.ensureDeferred
async def test_instances_count_by_their_limits_wherever_these_come_from(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    lxd = lxds[0].driver
    await lxd.create_profile("small", SMALL)
    await lxd.create_project("team-a")
    await lxd.create("own", config={"limits.cpu": "1", "limits.memory": "512MiB"})
    await lxd.create("profiled", profiles=["default", "small"])
    await lxd.create("overridden", profiles=["default", "small"], config={"limits.memory": "3GiB"})
    await lxd.create("elsewhere", config=SMALL, project="team-a")
    await lxd.create("capped", config={"limits.cpu.allowance": "25ms/100ms", "limits.memory": "1GB"})
    await lxd.create("free")
    async with running_fleet([settings(lxds[0], scheduler_pair)]) as fleet:
        view = await only_view(fleet)
    assert view.state in ANSWERING
    assert view.allocation.resources == Resources(4250, 512 * 1024**2 + GIB + 3 * GIB + GIB + 10**9)
    assert (view.allocation.counted, view.allocation.unlimited) == (6, 1)


@pytest_twisted.ensureDeferred
async def test_limits_that_mean_every_cpu_to_lxd_count_as_every_cpu(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    lxd = lxds[0].driver
    limits = {"zero": "0", "many": "64", "absent": "60-63"}
    if lxds[0].flavour == "incus":
        del limits["zero"]  # which it refuses
    for name, limit in limits.items():
        await lxd.create(name, config={"limits.cpu": limit, "limits.memory": "1GiB"})
    async with running_fleet([settings(lxds[0], scheduler_pair)]) as fleet:
        view = await only_view(fleet)
    assert view.capacity is not None
    assert view.allocation.resources.cpu == len(limits) * view.capacity.total.cpu


@pytest_twisted.ensureDeferred
async def test_a_share_of_memory_counts_as_that_share(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    await lxds[0].driver.create("half", config={"limits.cpu": "1", "limits.memory": "50%"})
    async with running_fleet([settings(lxds[0], scheduler_pair)]) as fleet:
        view = await only_view(fleet)
    assert view.capacity is not None
    assert view.allocation.resources.memory == view.capacity.total.memory // 2


@pytest_twisted.ensureDeferred
async def test_an_instance_counts_from_its_creation_to_its_deletion_unless_frozen(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    lxd = lxds[0].driver
    async with running_fleet([settings(lxds[0], scheduler_pair)]) as fleet:

        def counted() -> tuple[int, int, int]:
            (view,) = fleet.snapshot()
            return view.allocation.counted, view.allocation.exempt, view.allocation.resources.cpu

        async def becomes(expected: tuple[int, int, int]) -> None:
            await eventually(lambda: counted() == expected, counted)

        await until(fleet, State.LIVE)
        await becomes((0, 0, 0))
        await lxd.create("job", config=SMALL, startable=True)
        await becomes((1, 0, 1000))
        await lxd.start("job")
        await becomes((1, 0, 1000))
        await lxd.freeze("job")
        await becomes((0, 1, 0))
        await lxd.unfreeze("job")
        await becomes((1, 0, 1000))
        await lxd.stop("job")
        await becomes((1, 0, 1000))
        await lxd.delete("job")
        await becomes((0, 0, 0))


@pytest_twisted.ensureDeferred
async def test_a_change_of_limits_shows_in_the_view(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    lxd = lxds[0].driver
    await lxd.create_profile("size", SMALL)
    await lxd.create("a", profiles=["default", "size"])
    await lxd.create("b", profiles=["default", "size"])
    async with running_fleet([settings(lxds[0], scheduler_pair)]) as fleet:
        assert (await only_view(fleet)).allocation.resources == Resources(2000, 2 * GIB)
        await until(fleet, State.LIVE)
        await lxd.set_profile("size", {"limits.memory": "2GiB"})
        await eventually(lambda: fleet.snapshot()[0].allocation.resources == Resources(2000, 4 * GIB))
        await lxd.set_config("a", {"limits.memory": "5GiB"})
        await eventually(lambda: fleet.snapshot()[0].allocation.resources == Resources(2000, 7 * GIB))


@pytest_twisted.ensureDeferred
async def test_what_does_not_count_and_what_an_unlimited_one_counts_as_are_settings(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    await lxds[0].driver.create("free")
    counting = Counting(unlimited=Unlimited(cpu=500, memory=GIB))
    async with running_fleet([settings(lxds[0], scheduler_pair)], counting=counting) as fleet:
        assert (await only_view(fleet)).allocation.resources == Resources(500, GIB)
    counting = Counting(exempt=frozenset({"Stopped"}))
    async with running_fleet([settings(lxds[0], scheduler_pair)], counting=counting) as fleet:
        assert (await only_view(fleet)).allocation.exempt == 1


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_not_trusted_is_named_so_and_let_in_once_it_is(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    stranger = make_certificate("stranger", now=datetime.now(UTC), client=True)
    async with running_fleet([settings(lxds[0], stranger)]) as fleet:
        view = await only_view(fleet)
        assert view.state is State.UNTRUSTED
        assert f"does not trust our client certificate {stranger.fingerprint}" in (view.reason or "")
        await lxds[0].driver.trust(stranger.cert_pem, name="stranger")
        await until(fleet, State.LIVE)


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_trusted_no_more_is_refused_on_its_open_connection(
    lxds: tuple[Lxd, ...],
) -> None:
    pair = make_certificate("leaver", now=datetime.now(UTC), client=True)
    await lxds[0].driver.trust(pair.cert_pem, name="leaver")
    async with running_fleet([settings(lxds[0], pair)]) as fleet:
        assert (await only_view(fleet)).state in ANSWERING
        await lxds[0].driver.untrust(pair.fingerprint)
        await until(fleet, State.UNTRUSTED)
        (view,) = fleet.snapshot()
        assert not view.schedulable


@pytest_twisted.ensureDeferred
async def test_an_expired_client_certificate_is_not_trusted_and_its_end_is_named(lxds: tuple[Lxd, ...]) -> None:
    pair = make_certificate(
        "old", now=datetime.now(UTC), not_before=datetime(2020, 1, 1, tzinfo=UTC),
        not_after=datetime(2021, 1, 1, tzinfo=UTC), client=True,
    )  # fmt: skip
    async with running_fleet([settings(lxds[0], pair)]) as fleet:
        view = await only_view(fleet)
    assert view.state is State.UNTRUSTED
    assert "which ended on 2021-01-01" in (view.reason or "")


@pytest_twisted.ensureDeferred
async def test_a_certificate_confined_to_a_project_cannot_see_enough(lxds: tuple[Lxd, ...]) -> None:
    await lxds[0].driver.create_project("team-a")
    pair = make_certificate("confined", now=datetime.now(UTC), client=True)
    await lxds[0].driver.trust(pair.cert_pem, name="confined", restricted_projects=["team-a"])
    async with running_fleet([settings(lxds[0], pair)]) as fleet:
        view = await only_view(fleet)
    assert view.state is State.RESTRICTED
    assert "confined to some projects" in (view.reason or "")
    assert not view.schedulable


@pytest_twisted.ensureDeferred
async def test_a_host_with_another_certificate_than_the_pinned_one_is_refused(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    wrong = host_settings(lxds[0].url, scheduler_pair, pinned("0" * 64))
    async with running_fleet([wrong]) as fleet:
        view = await only_view(fleet)
    assert view.state is State.UNTRUSTED
    assert f"it shows {lxds[0].fingerprint}, pinned is {'0' * 64}" in (view.reason or "")


@pytest_twisted.ensureDeferred
async def test_the_answer_follows_what_happens_on_the_hosts(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    one, two, three = lxds
    await one.driver.create("a", config=SMALL, startable=True)
    await two.driver.create("b", config=SMALL, startable=True)
    async with running_fleet([settings(lxd, scheduler_pair) for lxd in lxds]) as fleet:

        async def best() -> str:
            placed = await decided(fleet, demand())
            assert isinstance(placed, Placement)
            return placed.view.host

        def counted() -> list[int]:
            return [view.allocation.counted for view in fleet.snapshot()]

        assert await best() == three.url
        await until(fleet, State.LIVE)
        await three.driver.create("c", config=SMALL)
        await three.driver.create("d", config=SMALL)
        await two.driver.start("b")
        await two.driver.freeze("b")
        await eventually(lambda: counted() == [1, 0, 2], counted)
        assert await best() == two.url
        await two.driver.unfreeze("b")
        await one.driver.delete("a")
        await eventually(lambda: counted() == [0, 1, 2], counted)
        assert await best() == one.url


@pytest_twisted.ensureDeferred
async def test_a_host_that_dies_while_asked_is_passed_over_and_comes_back(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    one, two, three = lxds
    await two.driver.create("b", config=SMALL)
    await three.driver.create("c", config=SMALL)
    async with running_fleet([settings(lxd, scheduler_pair) for lxd in lxds]) as fleet:
        placed = await decided(fleet, demand())
        assert isinstance(placed, Placement)
        assert placed.view.host == one.url
        await one.kill()
        placed = await decided(fleet, demand())
        assert isinstance(placed, Placement)
        assert placed.view.host in {two.url, three.url}
        assert placed.excluded is not None
        assert placed.excluded[one.url].reason.value == "unreachable"
        await two.kill()
        await three.kill()
        refused = await decided(fleet, demand())
        assert isinstance(refused, Refusal)
        assert refused.code.value == "no_host_reachable"
        for lxd in lxds:
            await lxd.revive()
        await until(fleet, State.LIVE)
        placed = await decided(fleet, demand())
        assert isinstance(placed, Placement)
        assert placed.view.host == one.url
