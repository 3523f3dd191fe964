"""What the members of a cluster tell, each of them of all, and how they describe each other."""

from __future__ import annotations

import pytest
import pytest_twisted

from lxdsched.sandbox.certs import KeyPair
from tests.contract.conftest import Lxd
from tests.contract.hearing import LIMITS, hearing_all, on, stranger, told_to_all


@pytest_twisted.ensureDeferred
async def test_every_member_tells_what_each_does_with_an_instance(
    members: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    one, _, three = (member.driver for member in members)
    async with hearing_all(members, scheduler_pair) as streams:
        await one.create("a", target="k2", startable=True)
        await told_to_all(streams, *on("k2", "created"))
        await three.start("a")
        await told_to_all(streams, *on("k2", "started"))
        await one.set_config("a", LIMITS)
        await told_to_all(streams, *on("k2", "updated"))
        await one.stop("a")
        await told_to_all(streams, *on("k2", "stopped"))
        await three.rename("a", "b")
        await told_to_all(streams, *on("k2", "renamed", name="b"))
        await one.delete("b")
        await told_to_all(streams, *on("k2", "deleted", name="b"))


@pytest_twisted.ensureDeferred
async def test_a_move_is_told_as_a_copy_a_deletion_and_a_renaming_except_by_incus(
    members: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    one, incus = members[0].driver, members[0].flavour == "incus"
    await one.create("a", target="k1")
    body = {"name": "a", "migration": True, "live": False}
    async with hearing_all(members, scheduler_pair) as streams:
        await one.request("POST", "/1.0/instances/a", body, query={"target": "k2"})
        moving = [*on("k2", "created", name="MOVING"), *on("k1", "deleted"), *on("k2", "renamed")]
        await told_to_all(streams, *(on("k1", "migrated") if incus else moving))
        await one.request("POST", "/1.0/instances/a", body | {"name": "b"}, query={"target": "k3"})
        moving = [*on("k3", "created", name="b"), *on("k2", "deleted")]
        await told_to_all(streams, *(on("k2", "renamed", "migrated", name="b") if incus else moving))
        assert {row["name"]: row["location"] for row in await one.instances()} == {"b": "k3"}


@pytest_twisted.ensureDeferred
async def test_of_an_evacuation_its_instances_tell_and_the_member_only_if_it_is_of_incus(
    members: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    one, incus = members[0].driver, members[0].flavour == "incus"
    member = "/1.0/cluster/members/k2"
    left = [("cluster-member-evacuated", member, "k2")] if incus else []
    returned = [("cluster-member-restored", member, "k2")] if incus else []
    async with hearing_all(members, scheduler_pair) as streams:
        await one.evacuate("k2")
        await one.restore("k2")
        await told_to_all(streams, *left, *returned)
        await one.create("a", target="k2", startable=True)
        await one.start("a")
        await one.create("b", target="k3")
        await told_to_all(streams, *on("k2", "created", "started"), *on("k3", "created", name="b"))
        await one.evacuate("k2")
        moving = [*on("k1", "created", name="MOVING"), *on("k2", "deleted"), *on("k1", "renamed")]
        there = on("k2", "migrated") if incus else moving
        await told_to_all(streams, *on("k2", "shutdown"), *there, *on("k1", "started"), *left)
        await one.restore("k2")
        moving = [*on("k2", "created", name="MOVING"), *on("k1", "deleted"), *on("k2", "renamed")]
        back = on("k1", "migrated") if incus else moving
        await told_to_all(streams, *on("k1", "shutdown"), *back, *on("k2", "started"), *returned)


@pytest_twisted.ensureDeferred
async def test_of_a_changed_profile_its_own_member_tells_and_that_of_each_instance(
    members: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    one, two, three = (member.driver for member in members)
    await one.create_profile("p", LIMITS)
    for name, member in (("a", "k1"), ("b", "k2"), ("c", "k3")):
        await one.create(name, profiles=["default", "p"], target=member)
    profile = "/1.0/profiles/p"
    async with hearing_all(members, scheduler_pair) as streams:
        await two.set_profile("p", {"limits.cpu": "2"})
        instances = [*on("k1", "updated"), *on("k2", "updated", name="b"), *on("k3", "updated", name="c")]
        await told_to_all(streams, ("profile-updated", profile, "k2"), *instances)
        await three.request("PATCH", profile, {"config": {"limits.cpu": "3"}})
        await told_to_all(streams, ("profile-updated", profile, "k3"), *on("k3", "updated", name="c"))
        limits = {row["name"]: row["expanded_config"]["limits.cpu"] for row in await one.instances()}
        assert limits == {"a": "3", "b": "3", "c": "3"}


@pytest_twisted.ensureDeferred
async def test_the_member_that_is_asked_tells_of_the_cluster_as_a_whole(
    members: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    one, two, three = (member.driver for member in members)
    other = stranger()
    async with hearing_all(members, scheduler_pair) as streams:
        await two.set_server_config({"user.lxdsched.drain": "true"})
        await told_to_all(streams, ("config-updated", "/1.0", "k2"))
        await three.set_member_config("k2", {"scheduler.instance": "manual"})
        await told_to_all(streams, ("cluster-member-updated", "/1.0/cluster/members/k2", "k3"))
        await one.create_project("team-a")
        await told_to_all(streams, ("project-created", "/1.0/projects/team-a", "k1"))
        await three.trust(other.cert_pem, name="other")
        certificate = f"/1.0/certificates/{other.fingerprint}"
        await told_to_all(streams, *(("certificate-created", certificate, name) for name in ("k1", "k2", "k3")))


@pytest_twisted.ensureDeferred
async def test_a_member_is_described_as_it_is(members: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    one = members[0].driver
    path = "/1.0/cluster/members/k2"
    plain = {
        "roles": ["database"],
        "failure_domain": "default",
        "description": "",
        "config": {},
        "groups": ["default"],
        "server_name": "k2",
        "url": members[1].url,
        "database": True,
        "status": "Online",
        "message": "Fully operational",
        "architecture": "x86_64",
    }
    assert await one.request("GET", path) == plain
    assert (await one.request("GET", "/1.0/cluster/members/k1"))["roles"] == ["database-leader", "database"]
    await one.set_member_config("k2", {"scheduler.instance": "manual"})
    assert await one.request("GET", path) == plain | {"config": {"scheduler.instance": "manual"}}
    await one.set_member_config("k2", {"scheduler.instance": None})
    await one.evacuate("k2")
    away = {"status": "Evacuated", "message": "Unavailable due to maintenance"}
    for member in members:
        assert await member.driver.request("GET", path) == plain | away
    with pytest.raises(Exception, match="Cluster member is already evacuated"):
        await one.evacuate("k2")
    await one.restore("k2")
    assert await one.request("GET", path) == plain
    with pytest.raises(Exception, match="Cluster member is already restored"):
        await one.restore("k2")
    with pytest.raises(Exception, match=r"Cluster member not found \(404\)"):
        await one.request("GET", "/1.0/cluster/members/k9")
