"""A simulated cluster: one set of instances, listed by every member."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import pytest_twisted
from twisted.internet import reactor  # noqa: TID251  # the tests run on the global reactor
from twisted.internet.defer import Deferred, gatherResults

from lxdsched.sandbox import Database, Hardware, SandboxFleet, ServerState, Status
from tests.sandbox.client import Client

ALL = "/1.0/instances?recursion=1&all-projects=true"


@pytest.fixture
def members() -> dict[str, ServerState]:
    database = Database(clustered=True)
    return {name: ServerState(name, Hardware(threads=8), database=database) for name in ("k1", "k2", "k3")}


@pytest.fixture
def clients(members: dict[str, ServerState]) -> Iterator[list[Client]]:
    fleet = SandboxFleet(reactor, states=list(members.values()), now=datetime.now(UTC))  # type: ignore[arg-type]
    pytest_twisted.blockon(Deferred.fromCoroutine(fleet.start()))
    clients = [Client(server.url, fleet.client) for server in fleet.servers]
    yield clients
    pytest_twisted.blockon(gatherResults([Deferred.fromCoroutine(client.aclose()) for client in clients]))
    pytest_twisted.blockon(Deferred.fromCoroutine(fleet.stop()))


@pytest_twisted.ensureDeferred
async def test_every_member_lists_every_instance_with_its_location(clients: list[Client]) -> None:
    body = {"source": {"type": "none"}}
    assert await clients[0].change("POST", "/1.0/instances?target=k2", body | {"name": "a"}) == (200, "")
    assert await clients[1].change("POST", "/1.0/instances", body | {"name": "b"}) == (200, "")
    assert await clients[2].change("POST", "/1.0/instances", body | {"name": "c"}) == (200, "")
    for client in clients:
        rows = await client.get(ALL)
        assert [(row["name"], row["location"]) for row in rows] == [("a", "k2"), ("b", "k1"), ("c", "k3")]
    missing = (404, "Cluster member not found")
    assert await clients[0].change("POST", "/1.0/instances?target=k9", body | {"name": "d"}) == missing


@pytest_twisted.ensureDeferred
async def test_the_members_know_each_other(clients: list[Client], members: dict[str, ServerState]) -> None:
    members["k2"].hardware = Hardware(threads=4)
    assert (await clients[0].get("/1.0/cluster"))["server_name"] == "k1"
    shown = await clients[0].get("/1.0/cluster/members?recursion=1")
    assert [member["server_name"] for member in shown] == ["k1", "k2", "k3"]
    assert [member["status"] for member in shown] == ["Online"] * 3
    assert (await clients[0].get("/1.0"))["environment"]["server_clustered"] is True
    assert (await clients[0].get("/1.0/resources?target=k2"))["cpu"]["total"] == 4
    assert (await clients[0].ask("GET", "/1.0/resources?target=k9"))[0] == 404
    assert (await clients[0].ask("GET", "/1.0/cluster/members/k9"))[0] == 404


@pytest_twisted.ensureDeferred
async def test_of_an_offline_members_instances_nothing_but_the_name_is_known(
    clients: list[Client], members: dict[str, ServerState]
) -> None:
    members["k1"].add_instance("n1", {"limits.cpu": "1"})
    members["k3"].add_instance("n3", {"limits.cpu": "1"})
    assert len(await clients[0].get(ALL)) == 2
    members["k3"].member_status = "Offline"
    first, last = await clients[0].get(ALL)
    assert first["config"]["limits.cpu"] == "1"
    assert last == {
        "architecture": "",
        "config": None,
        "devices": None,
        "ephemeral": False,
        "profiles": None,
        "stateful": False,
        "description": "",
        "created_at": "0001-01-01T00:00:00Z",
        "name": "n3",
        "status": "Error",
        "status_code": 112,
        "last_used_at": "0001-01-01T00:00:00Z",
        "location": "k3",
        "type": "",
        "project": "default",
    }
    assert (await clients[0].get("/1.0/cluster/members/k3"))["status"] == "Offline"


@pytest_twisted.ensureDeferred
async def test_an_evacuated_member_gives_its_instances_away_and_gets_them_back(
    clients: list[Client], members: dict[str, ServerState]
) -> None:
    members["k3"].add_instance("n3", status=Status.RUNNING)
    path = "/1.0/cluster/members/k3/state"
    assert await clients[0].change("POST", path, {"action": "evacuate", "mode": "stop"}) == (200, "")
    assert (await clients[0].get("/1.0/cluster/members/k3"))["status"] == "Evacuated"
    (row,) = await clients[0].get(ALL)
    assert row["location"] in {"k1", "k2"}
    assert (row["status"], row["config"]["volatile.evacuate.origin"]) == ("Running", "k3")
    again = (400, "Cluster member is already evacuated")
    assert await clients[0].change("POST", path, {"action": "evacuate"}) == again
    body = {"name": "n4", "source": {"type": "none"}}
    evacuated = (403, "Cluster member is evacuated")
    assert await clients[0].change("POST", "/1.0/instances?target=k3", body) == evacuated
    assert await clients[0].change("POST", path, {"action": "restore"}) == (200, "")
    assert (await clients[0].get(ALL))[0]["location"] == "k3"


@pytest_twisted.ensureDeferred
async def test_user_keys_of_the_server_config_belong_to_the_whole_cluster(clients: list[Client]) -> None:
    await clients[0].change("PATCH", "/1.0", {"config": {"user.x": "1"}})
    for client in clients:
        assert (await client.get("/1.0"))["config"]["user.x"] == "1"


@pytest_twisted.ensureDeferred
async def test_a_member_can_be_left_to_manual_placement(clients: list[Client]) -> None:
    path = "/1.0/cluster/members/k1"
    kept: dict[str, object] = {"roles": ["database"], "groups": ["default"], "failure_domain": "default"}
    body = kept | {"config": {"scheduler.instance": "manual"}}
    assert await clients[0].change("PUT", path, body) == (200, "")
    assert (await clients[2].get(path))["config"] == {"scheduler.instance": "manual"}
    for name in ("a", "b", "c"):
        await clients[0].change("POST", "/1.0/instances", {"name": name, "source": {"type": "none"}})
    assert {row["location"] for row in await clients[0].get(ALL)} == {"k2", "k3"}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest_twisted.ensureDeferred
async def test_what_a_member_is_must_be_repeated_when_its_config_changes(clients: list[Client], method: str) -> None:
    path = "/1.0/cluster/members/k1"
    key = "Invalid cluster configuration key"
    refusals: list[tuple[dict[str, object], int, str]] = [
        ({"roles": []}, 400, 'The "database" role cannot be dropped at this time'),
        ({"groups": []}, 400, "Cluster members need to belong to at least one group"),
        ({"config": {"nokey": "1"}}, 500, f'{key} "nokey"'),
        ({"config": {"scheduler.instance": "never"}}, 500, f'{key} "scheduler.instance" value'),
        ({"failure_domain": ""}, 500, "Update failure domain: Failure domain name can't be empty"),
    ]
    good = {"roles": ["database"], "groups": ["default"], "failure_domain": "default", "config": {"user.a": "1"}}
    for wrong, code, problem in refusals:
        assert await clients[0].change(method, path, good | wrong) == (code, problem)
    assert (await clients[0].get(path))["config"] == {}
    assert await clients[0].change(method, path, good) == (200, "")
    assert await clients[0].change(method, path, good | {"config": {"user.b": "2"}}) == (200, "")
    left = {"user.a": "1", "user.b": "2"} if method == "PATCH" else {"user.b": "2"}
    assert (await clients[0].get(path))["config"] == left


@pytest_twisted.ensureDeferred
async def test_an_instance_can_be_moved_to_another_member(
    clients: list[Client], members: dict[str, ServerState]
) -> None:
    members["k1"].add_instance("a", status=Status.RUNNING)
    path, body = "/1.0/instances/a", {"name": "a", "migration": True}
    assert await clients[1].change("POST", f"{path}?target=k3", body) == (200, "")
    row = await clients[0].get(path)
    assert (row["location"], row["status"]) == ("k3", "Running")
    there = (400, "Target must be different than instance's current location")
    assert await clients[1].change("POST", f"{path}?target=k3", body) == there
    unknown = (404, "Failed to get target node: Cluster member not found")
    assert await clients[1].change("POST", f"{path}?target=k9", body) == unknown
    assert await clients[1].change("POST", f"{path}?target=k2", {"name": "a"}) == (409, 'Name "a" already in use')


@pytest_twisted.ensureDeferred
async def test_a_server_alone_knows_no_cluster(client: Client) -> None:
    assert (await client.get("/1.0/cluster"))["enabled"] is False
    assert await client.change("GET", "/1.0/cluster/members") == (500, "Server is not clustered")
    body = {"name": "a", "source": {"type": "none"}}
    alone = (400, "Target only allowed when clustered")
    assert await client.change("POST", "/1.0/instances?target=k1", body) == alone
    evacuated = await client.change("POST", "/1.0/cluster/members/vm/state", {"action": "evacuate"})
    assert evacuated == (404, "Cluster member not found")
