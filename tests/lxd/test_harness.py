"""The harness itself: its daemons, LXD's and Incus', are real, and do what they are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import pytest_twisted
from twisted.internet.error import ConnectError

from lxdsched.sandbox.certs import KeyPair, make_certificate
from tests.lxd.cluster import LxdCluster
from tests.lxd.driver import LxdDriver, LxdError
from tests.lxd.fixtures import RealLxd
from tests.lxd.flavour import INCUS, LXD, Flavour
from tests.lxd.rest import IReactor, together

pytestmark = pytest.mark.real_lxd


@pytest.fixture
def servers(flavour: Flavour, request: pytest.FixtureRequest) -> tuple[RealLxd, ...]:
    """Three servers of each flavour in turn."""
    found: tuple[RealLxd, ...] = request.getfixturevalue("fresh_lxds" if flavour is LXD else "fresh_incus")
    return found


@pytest.fixture
def cluster(flavour: Flavour, request: pytest.FixtureRequest) -> LxdCluster:
    """A cluster of each flavour in turn."""
    found: LxdCluster = request.getfixturevalue("fresh_cluster" if flavour is LXD else "fresh_incus_cluster")
    return found


async def statuses(driver: LxdDriver) -> dict[str, str]:
    return {row["name"]: row["status"] for row in await driver.instances()}


@pytest_twisted.ensureDeferred
async def test_a_server_says_what_it_is(servers: tuple[RealLxd, ...], flavour: Flavour) -> None:
    environment = (await servers[1].driver.request("GET", "/1.0"))["environment"]
    assert (environment["server"], environment["server_name"]) == (flavour.name, "node-2")


@pytest_twisted.ensureDeferred
async def test_an_instance_really_starts_freezes_and_stops(servers: tuple[RealLxd, ...]) -> None:
    driver = servers[0].driver
    await driver.create("one", startable=True)
    seen = [await statuses(driver)]
    for step in (driver.start, driver.freeze, driver.unfreeze, driver.restart, driver.freeze, driver.stop):
        await step("one")
        seen.append(await statuses(driver))
    await driver.start("one")
    await driver.stop("one", force=False)
    seen.append(await statuses(driver))
    words = [status["one"] for status in seen]
    assert words == ["Stopped", "Running", "Frozen", "Running", "Running", "Frozen", "Stopped", "Stopped"]


@pytest_twisted.ensureDeferred
async def test_limits_come_from_profiles_and_are_overridden_by_the_instance(
    servers: tuple[RealLxd, ...],
) -> None:
    driver = servers[0].driver
    await driver.create_profile("small", {"limits.cpu": "1", "limits.memory": "1GiB"})
    await driver.create("one", profiles=["default", "small"], config={"limits.cpu": "2"})
    await driver.set_profile("small", {"limits.memory": "2GiB", "user.note": "x"})
    row = await driver.instance("one")
    assert row["config"]["limits.cpu"] == row["expanded_config"]["limits.cpu"] == "2"
    assert "limits.memory" not in row["config"]
    assert row["expanded_config"]["limits.memory"] == "2GiB"

    await driver.set_config("one", {"limits.cpu": None, "limits.memory": "3GiB"})
    row = await driver.instance("one")
    assert (row["expanded_config"]["limits.cpu"], row["config"]["limits.memory"]) == ("1", "3GiB")

    await driver.set_profiles("one", ["default"])
    assert "limits.cpu" not in (await driver.instance("one"))["expanded_config"]


@pytest_twisted.ensureDeferred
async def test_a_refusal_and_a_failed_operation_raise(servers: tuple[RealLxd, ...], flavour: Flavour) -> None:
    driver = servers[0].driver
    await driver.create("empty")
    with pytest.raises(LxdError, match="Invalid CPU limit syntax") as refused:
        await driver.set_config("empty", {"limits.cpu": "many"})
    assert refused.value.status == 500
    with pytest.raises(LxdError) as missing:
        await driver.instance("other")
    assert missing.value.status == 404
    with pytest.raises(LxdError) as failed:
        await driver.start("empty")
    assert failed.value.status == {LXD: 400, INCUS: 500}[flavour]


@pytest_twisted.ensureDeferred
async def test_a_restricted_certificate_sees_its_projects_only(
    servers: tuple[RealLxd, ...], flavour: Flavour, lxd_reactor: IReactor
) -> None:
    real = servers[0]
    await real.driver.create_project("team-a")
    await real.driver.create("mine", project="team-a")
    await real.driver.create("yours")
    pair = make_certificate("confined", now=datetime.now(UTC), client=True)
    confined = LxdDriver(real.daemon.url, lxd_reactor, pair, real.daemon.fingerprint)
    try:
        assert (await confined.request("GET", "/1.0"))["auth"] == "untrusted"
        await real.driver.trust(pair.cert_pem, restricted_projects=["team-a"])
        rows = await confined.request("GET", "/1.0/instances", query={"recursion": "1", "project": "team-a"})
        assert [row["name"] for row in rows] == ["mine"]
        if flavour is INCUS:
            assert [row["name"] for row in await confined.instances()] == ["mine"]
        else:
            with pytest.raises(LxdError) as refused:
                await confined.instances()
            assert refused.value.status == 403
        own = await confined.request("GET", f"/1.0/certificates/{pair.fingerprint}")
        assert (own["restricted"], own["projects"]) == (True, ["team-a"])
        await real.driver.untrust(pair.fingerprint)
        assert (await confined.request("GET", "/1.0"))["auth"] == "untrusted"
    finally:
        await confined.aclose()


@pytest_twisted.ensureDeferred
async def test_a_server_that_shows_another_certificate_is_refused(
    servers: tuple[RealLxd, ...], lxd_reactor: IReactor, lxd_admin: KeyPair
) -> None:
    stranger = LxdDriver(servers[0].daemon.url, lxd_reactor, lxd_admin, servers[1].daemon.fingerprint)
    with pytest.raises(Exception, match="certificate verify failed"):
        await stranger.instances()
    await stranger.aclose()


@pytest_twisted.ensureDeferred
async def test_reset_leaves_nothing_of_a_test_behind(servers: tuple[RealLxd, ...]) -> None:
    driver = servers[0].driver
    pair = make_certificate("guest", now=datetime.now(UTC) - timedelta(days=1), client=True)
    await driver.create_project("team-a")
    await driver.create_profile("small", {"limits.cpu": "1"})
    await driver.set_profile("default", {"limits.cpu": "1"})
    await driver.trust(pair.cert_pem, restricted_projects=["team-a"])
    await driver.set_server_config({"user.lxdsched.drain": "true"})
    await driver.create("running", startable=True, profiles=["default", "small"], project="team-a")
    await driver.start("running", project="team-a")
    await driver.create("frozen", startable=True)
    await driver.start("frozen")
    await driver.freeze("frozen")

    await driver.reset()

    assert await driver.instances() == []
    assert await driver.request("GET", "/1.0/projects") == ["/1.0/projects/default"]
    assert await driver.request("GET", "/1.0/profiles") == ["/1.0/profiles/default"]
    default = await driver.request("GET", "/1.0/profiles/default")
    assert (default["config"], list(default["devices"])) == ({}, ["root"])
    assert len(await driver.request("GET", "/1.0/certificates")) == 1
    assert list((await driver.request("GET", "/1.0"))["config"]) == ["core.https_address"]


@pytest_twisted.ensureDeferred
async def test_a_daemon_that_was_killed_starts_again_with_its_instances_running(
    servers: tuple[RealLxd, ...],
) -> None:
    real = servers[1]
    await real.driver.create("one", startable=True)
    await real.driver.start("one")
    await real.daemon.kill()
    with pytest.raises(ConnectError):
        await real.driver.instances()
    await real.daemon.start()
    assert await statuses(real.driver) == {"one": "Running"}


@pytest_twisted.ensureDeferred
async def test_a_daemon_that_was_stopped_starts_again_on_its_old_address(
    servers: tuple[RealLxd, ...],
) -> None:
    real = servers[1]
    url, fingerprint = real.daemon.url, real.daemon.fingerprint
    await real.driver.create("one")
    await real.daemon.stop()
    assert real.daemon.pid is None
    await real.daemon.start()
    assert (real.daemon.url, real.daemon.fingerprint) == (url, fingerprint)
    assert await statuses(real.driver) == {"one": "Stopped"}


@pytest_twisted.ensureDeferred
async def test_a_suspended_daemon_answers_nothing_until_it_is_resumed(
    servers: tuple[RealLxd, ...],
) -> None:
    real = servers[2]
    await real.driver.aclose()
    real.daemon.suspend()
    with pytest.raises(TimeoutError):
        await real.driver.request("GET", "/1.0", timeout=0.3)
    real.daemon.resume()
    assert (await real.driver.request("GET", "/1.0"))["environment"]["server_name"] == "node-3"


@pytest_twisted.ensureDeferred
async def test_every_member_of_a_cluster_lists_the_whole_cluster(cluster: LxdCluster) -> None:
    await together(cluster.drivers[0].create(f"on-{name}", target=name) for name in ("k1", "k2", "k3"))
    for driver in cluster.drivers:
        rows = await driver.instances()
        assert {row["name"]: row["location"] for row in rows} == {"on-k1": "k1", "on-k2": "k2", "on-k3": "k3"}


@pytest_twisted.ensureDeferred
async def test_an_evacuated_member_comes_back_with_the_next_reset(cluster: LxdCluster) -> None:
    driver = cluster.drivers[0]
    await driver.set_member_config("k3", {"scheduler.instance": "manual"})
    await driver.evacuate("k2")
    assert (await driver.request("GET", "/1.0/cluster/members/k2"))["status"] == "Evacuated"
    await cluster.reset()
    members = await driver.request("GET", "/1.0/cluster/members", query={"recursion": "1"})
    assert {row["status"] for row in members} == {"Online"}
    assert [row["config"].get("scheduler.instance", "all") for row in members] == ["all", "all", "all"]


@pytest_twisted.ensureDeferred
async def test_instances_of_a_dead_member_are_listed_without_config(cluster: LxdCluster) -> None:
    driver = cluster.drivers[0]
    await driver.create("on-k1", target="k1")
    await driver.create("on-k3", target="k3")
    await cluster.daemons[2].kill()
    rows = {row["name"]: row for row in await driver.instances()}
    assert rows["on-k1"]["expanded_config"] is not None
    dead = rows["on-k3"]
    assert (dead["status"], dead["config"], "expanded_config" in dead) == ("Error", None, False)
