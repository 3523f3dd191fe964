"""What captured answers of real LXD and Incus mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lxdsched.fleet import counting, payloads
from lxdsched.fleet.counting import MOST_KINDS, allocating
from lxdsched.fleet.listing import read_listing
from lxdsched.fleet.payloads import PayloadError, open_envelope, open_metadata
from lxdsched.fleet.settings import Counting, HostSettings
from lxdsched.fleet.work import at_once
from lxdsched.limits import Unlimited
from lxdsched.model import Allocation, Capacity, Instance, InstanceType, Kind, Resources

DATA = Path(__file__).parent.parent / "data" / "lxd"
GIB = 1024**3
SETTINGS = HostSettings("node-1", "https://node-1:8443", identity=None)  # type: ignore[arg-type]  # not looked at here


def captured(name: str) -> payloads.Envelope:
    return open_envelope((DATA / name).read_bytes())


def answered(metadata: object) -> payloads.Envelope:
    return open_envelope(json.dumps({"type": "sync", "error_code": 0, "metadata": metadata}).encode())


def host(cores: int = 2, *, name: str = "vm", clustered: bool = False) -> Capacity:
    size = Resources(cores * 1000, 24 * GIB)
    kinds = frozenset({InstanceType.CONTAINER})
    return Capacity(name, size, size, frozenset(range(cores)), frozenset({"x86_64"}), kinds, clustered)


def counted(
    envelope: payloads.Envelope,
    on: Capacity | None = None,
    counting: Counting | None = None,
    known: Mapping[str, Instance] | None = None,
) -> Allocation:
    rows, odd = at_once(read_listing(envelope))
    return at_once(allocating(rows, odd, on or host(), counting or Counting(), known or {}))


def row(name: str, status: object = "Running", **more: Any) -> dict[str, Any]:
    config = {"limits.cpu": "1", "limits.memory": "1GiB"}
    return {"name": name, "status": status, "type": "container", "expanded_config": config, **more}


@pytest.mark.parametrize("flavour", ["auth/trusted", "incus-7.0.2/trusted"])
def test_a_host_tells_its_size_name_and_kinds(flavour: str) -> None:
    server = open_metadata(captured(f"{flavour}-_1.0.json"), payloads.Server)
    hardware = open_metadata(captured(f"{flavour}-_1.0_resources.json"), payloads.Hardware)
    assert server.environment is not None
    capacity = counting.capacity(server.environment, hardware, SETTINGS)
    assert (server.auth, capacity.name, capacity.clustered) == ("trusted", "vm", False)
    assert capacity.total == Resources(2000, 25769803776)
    assert capacity.cpus == {0, 1}
    assert capacity.architectures == {"x86_64", "i686"}
    assert capacity.instance_types == {InstanceType.CONTAINER}


def test_a_stranger_is_told_no_more_than_that_it_is_one() -> None:
    server = open_metadata(captured("auth/untrusted-_1.0.json"), payloads.Server)
    assert (server.auth, server.environment) == ("untrusted", None)


def test_a_cluster_member_knows_that_it_is_one() -> None:
    server = open_metadata(captured("cluster/k1-1.0.json"), payloads.Server)
    assert server.environment is not None
    assert (server.environment.server_name, server.environment.server_clustered) == ("k1", True)


def test_a_refused_listing_is_an_error_by_its_code() -> None:
    assert captured("auth/restricted-_1.0_instances_recursion_1_all-projects_true.json").error_code == 403
    assert captured("cluster/k1-instances-quorum-lost.json").error_code == 503


def test_what_counts_of_every_odd_limit_that_a_real_lxd_accepted() -> None:
    allocation = counted(captured("limits/instances-recursion1.json"))
    assert not allocation.doubts
    cores = {name.removeprefix("default/"): share.resources.cpu for name, share in allocation.members.items()}
    assert cores["l-cpu-count"] == cores["l-cpu-list"] == cores["l-cpu-range"] == 2000
    assert cores["l-cpu-pin1"] == 1000
    assert cores["l-cpu-toobig"] == cores["l-zero-cpu"] == cores["l-cpu-range-nonexist"] == 2000
    assert (cores["l-cpu-allow-time"], cores["l-cpu-allow-pct"]) == (250, 0)
    assert (cores["l-profile"], cores["l-profile-override"]) == (1000, 2000)
    memory = {name.removeprefix("default/"): share.resources.memory for name, share in allocation.members.items()}
    assert memory["l-mem-bytes"] == memory["l-mem-mib"] == 256 * 1024**2
    assert (memory["l-mem-mb"], memory["l-mem-toobig"]) == (256 * 1000**2, 1024 * GIB)
    assert (memory["l-mem-pct"], memory["l-pct-big"]) == (12 * GIB, 36 * GIB)
    assert memory["l-profile"] == memory["l-profile-override"] == 512 * 1024**2


def test_frozen_instances_are_exempt_and_stopped_ones_are_not() -> None:
    allocation = counted(answered([row("a"), row("b", "Frozen"), row("c", "Stopped"), row("d", "Error")]))
    assert (allocation.counted, allocation.exempt) == (3, 1)
    assert allocation.resources == Resources(3000, 3 * GIB)


def test_which_statuses_are_exempt_is_a_setting() -> None:
    rows = answered([row("a"), row("b", "Frozen"), row("c", "Stopped")])
    assert counted(rows, counting=Counting(exempt=frozenset())).counted == 3
    assert counted(rows, counting=Counting(exempt=frozenset({"Frozen", "Stopped"}))).counted == 1


def test_a_mixed_listing_of_a_real_lxd_is_counted_by_status() -> None:
    allocation = counted(captured("status/instances-mixed-recursion1.json"))
    assert (allocation.counted, allocation.exempt) == (30, 1)


def test_containers_without_limits_are_counted_apart() -> None:
    free = {"limits.cpu": "1"}
    rows = answered([row("a", expanded_config=free), row("b")])
    assert counted(rows).unlimited == 1
    allocation = counted(rows, counting=Counting(unlimited=Unlimited(cpu=4000, memory=GIB)))
    assert allocation.resources == Resources(2000, 2 * GIB)


@pytest.mark.parametrize(("member", "cores"), [("k1", 2), ("k2", 4)])
def test_on_a_cluster_only_the_members_own_instances_count(member: str, cores: int) -> None:
    allocation = counted(captured("cluster/k1-instances-k3-dead.json"), host(4, name=member, clustered=True))
    assert (allocation.counted, allocation.resources.cpu) == (2, cores * 1000)
    assert not allocation.doubts


def test_rows_without_config_are_doubtful_and_count_as_last_known() -> None:
    envelope = captured("cluster/k1-instances-k3-dead.json")
    k3 = host(8, name="k3", clustered=True)
    allocation = counted(envelope, k3, known={"default/n3a": Instance("n3a", Resources(3000, GIB))})
    assert allocation.resources == Resources(3000, GIB)
    assert allocation.counted == 2
    assert allocation.doubts == {
        "default/n3a": "it is listed without its config",
        "default/n3b": "it is listed without its config",
    }


@pytest.mark.parametrize(
    ("odd", "doubt"),
    [
        (row("odd", expanded_config={"limits.cpu": "many"}), "limits.cpu: 'many' is neither"),
        (row("odd", expanded_config={"limits.memory": "1.5GiB"}), "limits.memory: '1.5GiB' is not a size"),
        (row("odd", type="appliance"), "'appliance' is no type of instance"),
        (row("odd", expanded_config={"limits.cpu": 2}), "Expected `str`, got `int`"),
        (row("odd", status=103), "Expected `str`, got `int`"),
    ],
)
def test_one_odd_instance_is_doubtful_and_the_others_still_count(odd: dict[str, Any], doubt: str) -> None:
    allocation = counted(answered([row("a"), odd, row("b")]))
    assert list(allocation.doubts) == ["default/odd"]
    assert doubt in allocation.doubts["default/odd"]
    assert (allocation.counted, allocation.unlimited, allocation.resources) == (3, 1, Resources(2000, 2 * GIB))


def test_a_row_that_is_no_object_is_doubtful_by_its_place() -> None:
    assert list(counted(answered([row("a"), 7])).doubts) == ["default/row 1"]


def test_an_odd_row_of_another_cluster_member_is_that_members_business() -> None:
    rows = answered([row("a", location="k1"), row("odd", expanded_config={"limits.cpu": 2}, location="k2")])
    assert counted(rows, host(name="k1", clustered=True)).doubts == {}
    assert list(counted(rows, host(name="k2", clustered=True)).doubts) == ["default/odd"]


def test_an_odd_row_that_is_frozen_is_exempt_all_the_same() -> None:
    allocation = counted(answered([row("odd", "Frozen", expanded_config={"limits.cpu": 2})]))
    assert (allocation.doubts, allocation.exempt) == ({}, 1)


def test_instances_of_the_same_name_in_two_projects_both_count() -> None:
    assert counted(answered([row("a"), row("a", project="team-b")])).counted == 2


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"metadata":', b"\xff\xfe", b"[" * 100_000, b'{"error_code":"x"}']
)
def test_what_is_not_lxds_envelope_is_an_error(body: bytes) -> None:
    with pytest.raises(PayloadError):
        open_envelope(body)


@pytest.mark.parametrize("metadata", [None, {}, "text", 7])
def test_what_is_no_listing_is_an_error(metadata: object) -> None:
    with pytest.raises(PayloadError):
        at_once(read_listing(answered(metadata)))


def threads(*flags: tuple[bool, bool]) -> list[dict[str, Any]]:
    made = [{"id": n, "online": online, "isolated": isolated} for n, (online, isolated) in enumerate(flags)]
    return [{"cores": [{"threads": made}]}]


def size_of(cpu: dict[str, Any], memory: int = GIB, settings: HostSettings = SETTINGS) -> Capacity:
    hardware = open_metadata(answered({"cpu": cpu, "memory": {"total": memory}}), payloads.Hardware)
    return counting.capacity(payloads.Environment(server_name="x", driver="lxc | qemu"), hardware, settings)


def test_only_threads_that_are_online_and_not_isolated_are_capacity() -> None:
    sockets = threads((True, False), (True, True), (False, False), (True, False))
    assert size_of({"total": 4, "sockets": sockets}).cpus == {0, 3}


def test_without_a_list_of_threads_their_total_is_taken() -> None:
    assert size_of({"total": 3}).cpus == {0, 1, 2}
    assert size_of({"total": 3, "sockets": None}).total.cpu == 3000


def test_both_drivers_mean_both_kinds_of_instance() -> None:
    assert size_of({"total": 3}).instance_types == set(InstanceType)


def test_cpu_is_over_committed_and_memory_held_back() -> None:
    settings = HostSettings("n", "https://n:1", None, over_commit_percent=250, reserve_memory=GIB // 4)  # type: ignore[arg-type]
    capacity = size_of({"total": 4}, settings=settings)
    assert (capacity.total, capacity.usable) == (Resources(4000, GIB), Resources(10_000, GIB * 3 // 4))


@pytest.mark.parametrize(("cpus", "memory"), [(0, GIB), (-1, GIB), (4, 0), (4, -5), (10**9, GIB)])
def test_a_host_that_claims_an_impossible_size_is_not_believed(cpus: int, memory: int) -> None:
    with pytest.raises(PayloadError, match="it claims to have"):
        size_of({"total": cpus}, memory)


def labelled(**config: str) -> dict[str, str]:
    return {
        "limits.cpu": "1",
        "limits.memory": "1GiB",
        **{f"user.myshoes_{key}": value for key, value in config.items()},
    }


def test_frozen_instances_of_the_pool_that_have_no_job_are_ready_by_their_kind() -> None:
    small = {"resource_type": "small", "image_alias": "jammy"}
    allocation = counted(
        answered(
            [
                row("a", "Frozen", expanded_config=labelled(**small)),
                row("b", "Frozen", expanded_config=labelled(**small)),
                row("c", "Frozen", expanded_config=labelled(resource_type="large")),
                row("taken", "Frozen", expanded_config=labelled(**small, runner_name="job-1")),
                row("by hand", "Frozen"),
                row("stock", "Stopped", expanded_config=labelled(**small)),
                row("working", "Running", expanded_config=labelled(**small, runner_name="job-2")),
            ]
        )
    )
    assert allocation.ready == {Kind("small", "jammy"): 2, Kind("large", None): 1}
    assert (allocation.counted, allocation.exempt) == (2, 5)
    members = allocation.members
    assert members["default/working"].runner == "job-2"
    assert members["default/working"].kind == members["default/stock"].kind == Kind("small", "jammy")
    assert members["default/stock"].runner is None


def test_nothing_is_ready_where_frozen_instances_count() -> None:
    rows = answered([row("a", "Frozen", expanded_config=labelled(resource_type="small"))])
    assert not counted(rows, counting=Counting(exempt=frozenset())).ready


def test_an_instance_that_was_never_understood_is_no_member_though_it_counts() -> None:
    allocation = counted(answered([row("a"), row("b", expanded_config={"limits.cpu": "x"})]))
    assert (allocation.counted, set(allocation.members)) == (2, {"default/a"})


def test_the_kinds_of_a_host_that_lies_are_bounded() -> None:
    rows = [row(f"p{n}", "Frozen", expanded_config=labelled(resource_type=f"t{n}")) for n in range(1000)]
    assert len(counted(answered(rows)).ready) == MOST_KINDS
