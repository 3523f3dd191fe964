"""What is done with instances, profiles and projects. Every refusal is worded as a real LXD 5.0.2 worded it."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from lxdsched.sandbox import ServerState, Status
from tests.sandbox.client import Client

NONE = {"type": "none"}
ALL = "/1.0/instances?recursion=1&all-projects=true"


async def create(client: Client, name: str, query: str = "", **body: Any) -> tuple[int, str]:
    return await client.change("POST", f"/1.0/instances{query}", {"name": name, "source": NONE} | body)


@pytest_twisted.ensureDeferred
async def test_creating_an_instance_is_an_operation_whose_end_can_be_waited_for(client: Client) -> None:
    response = await client.response("POST", "/1.0/instances", {"name": "c1", "source": NONE})
    envelope = await response.json()
    assert response.code == 202
    assert envelope["type"] == "async"
    assert envelope["status_code"] == 100
    assert envelope["metadata"]["status"] == "Running"
    assert envelope["metadata"]["resources"]["instances"] == ["/1.0/instances/c1"]
    assert response.headers.getRawHeaders("location") == [envelope["operation"]]
    operation = await client.get(f"{envelope['operation']}/wait?timeout=5")
    assert (operation["status"], operation["err"]) == ("Success", "")
    assert await client.get("/1.0/operations") == {"success": [envelope["operation"]]}


@pytest_twisted.ensureDeferred
async def test_a_new_instance_is_stopped_and_has_the_default_profile(client: Client) -> None:
    config = {"limits.cpu": "2", "limits.memory": "2GiB"}
    assert await create(client, "c1", config=config) == (200, "")
    row = await client.get("/1.0/instances/c1")
    assert (row["status"], row["status_code"], row["location"]) == ("Stopped", 102, "none")
    assert (row["type"], row["profiles"], row["project"]) == ("container", ["default"], "default")
    assert config.items() <= row["expanded_config"].items()
    assert row["expanded_devices"] == {"root": {"path": "/", "pool": "default", "type": "disk"}}


@pytest_twisted.ensureDeferred
async def test_later_profiles_win_over_earlier_ones_and_own_keys_over_all(client: Client) -> None:
    await client.change("POST", "/1.0/profiles", {"name": "p1", "config": {"limits.cpu": "1", "user.p": "1"}})
    await client.change("POST", "/1.0/profiles", {"name": "p3", "config": {"limits.cpu": "3"}})
    await create(client, "i1", profiles=["default", "p1", "p3"])
    await create(client, "i2", profiles=["default", "p3", "p1"], config={"limits.cpu": "7"})
    one, two = await client.get(ALL)
    assert (one["expanded_config"]["limits.cpu"], one["expanded_config"]["user.p"]) == ("3", "1")
    assert "limits.cpu" not in one["config"]
    assert two["expanded_config"]["limits.cpu"] == "7"
    await client.change("PATCH", "/1.0/profiles/p1", {"config": {"user.p": "9"}})
    assert [row["expanded_config"]["user.p"] for row in await client.get(ALL)] == ["9", "9"]
    assert (await client.get("/1.0/profiles/p1"))["used_by"] == ["/1.0/instances/i1", "/1.0/instances/i2"]
    assert await client.change("DELETE", "/1.0/profiles/p1") == (500, "Profile is currently in use")


@pytest_twisted.ensureDeferred
async def test_instances_are_listed_by_name_in_rows_and_by_age_in_addresses(client: Client) -> None:
    for name in ("zz", "aa"):
        await create(client, name)
    assert [row["name"] for row in await client.get("/1.0/instances?recursion=1")] == ["aa", "zz"]
    assert await client.get("/1.0/instances") == ["/1.0/instances/zz", "/1.0/instances/aa"]


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        ({"name": "bad_name"}, 400, "Invalid instance name: Name can only contain alphanumeric and hyphen characters"),
        ({"name": "1abc"}, 400, "Invalid instance name: Name must not start with a number"),
        ({"source": None}, 400, "Unknown source type "),
        ({"profiles": ["nope"]}, 500, 'Requested profile "nope" doesn\'t exist'),
        ({"type": "zork"}, 400, "Invalid instance type"),
        ({"architecture": "zork"}, 500, "Architecture isn't supported: zork"),
        (
            {"config": {"limits.cpu": 2}},
            400,
            "json: cannot unmarshal number into Go struct field InstancesPost.config of type string",
        ),
        ({"config": {"zork": "1"}}, 400, "Failed creating instance record: Unknown configuration key: zork"),
        ({"config": {"limits.cpu": "x"}}, 400, "Failed creating instance record: Invalid CPU limit syntax"),
        ({"config": {"limits.memory": "1G"}}, 400, "Failed creating instance record: Invalid value: 1G"),
        ({"devices": {"a": {"type": "zork"}}}, 400, "Failed creating instance record: Invalid device type zork"),
        (
            {"profiles": []},
            400,
            "Failed creating instance record: Failed initialising instance: Failed getting root disk: "
            "No root device could be found",
        ),
        (
            {"name": "c1"},
            400,
            'Failed creating instance record: Add instance info to the database: This "instances" entry already exists',
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_impossible_instance_is_refused(
    client: Client, state: ServerState, body: dict[str, Any], status: int, problem: str
) -> None:
    state.add_instance("c1")
    assert await client.change("POST", "/1.0/instances", {"name": "c2", "source": NONE} | body) == (status, problem)
    assert await client.get("/1.0/instances") == ["/1.0/instances/c1"]


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"{zork"])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_no_object_is_a_bad_request(client: Client, body: bytes) -> None:
    response = await client._http.request("POST", client._url + "/1.0/instances", data=body)
    assert response.code == 400
    assert (await response.json())["error_code"] == 400


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("limits.cpu", ["0", "0-0", "0-3", "1,3", "64", "5-7", "3-1"], ["-1", "1-", "1,,2", " 2", "1.5"]),
        ("limits.memory", ["50%", "150%", "1GB", "1kB", "5EiB", "7"], ["0", "-5", "1KB", "1 GiB", "1.5GiB", "100EiB"]),
        ("limits.cpu.allowance", ["50%", "10ms/100ms", "10/100"], ["50", "x%", "1s/100ms", "%"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_limits_are_checked_as_lxd_checks_them(
    client: Client, state: ServerState, key: str, good: list[str], bad: list[str]
) -> None:
    state.add_instance("c1")
    for value in good:
        assert await client.change("PATCH", "/1.0/instances/c1", {"config": {key: value}}) == (200, "")
        assert (await client.get("/1.0/instances/c1"))["config"][key] == value
    for value in bad:
        status, problem = await client.change("PATCH", "/1.0/instances/c1", {"config": {key: value}})
        assert status == 500
        assert problem.startswith("Invalid config: ")
    assert await client.change("PATCH", "/1.0/instances/c1", {"config": {key: ""}}) == (200, "")
    assert key not in (await client.get("/1.0/instances/c1"))["config"]


@pytest_twisted.ensureDeferred
async def test_put_replaces_everything_but_insists_on_the_idmap(client: Client, state: ServerState) -> None:
    state.add_instance("c1", {"limits.cpu": "1", "user.x": "y"})
    row = await client.get("/1.0/instances/c1")
    lost = (400, "Volatile idmap keys can't be deleted by the user")
    assert await client.change("PUT", "/1.0/instances/c1", {"config": {"limits.cpu": "2"}}) == lost
    config = {key: value for key, value in row["config"].items() if key.startswith("volatile.")}
    body: dict[str, Any] = {"config": config | {"limits.cpu": "2"}, "profiles": ["default"], "description": "put"}
    assert await client.change("PUT", "/1.0/instances/c1", body) == (200, "")
    row = await client.get("/1.0/instances/c1")
    assert (row["config"]["limits.cpu"], row["description"]) == ("2", "put")
    assert "user.x" not in row["config"]
    body["config"]["limits.memory"] = "1G"
    assert await client.change("PUT", "/1.0/instances/c1", body) == (400, "Invalid config: Invalid value: 1G")


@pytest_twisted.ensureDeferred
async def test_an_instance_lives_through_its_states(client: Client) -> None:
    await create(client, "c1")
    running, stopped = (400, "The instance is already running"), (400, "The instance is already stopped")
    frozen, down = (400, "The container is already frozen"), (400, "The container isn't running")
    steps: list[tuple[str, tuple[int, str], str]] = [
        ("stop", stopped, "Stopped"),
        ("freeze", down, "Stopped"),
        ("unfreeze", down, "Stopped"),
        ("restart", stopped, "Stopped"),
        ("start", (200, ""), "Running"),
        ("start", running, "Running"),
        ("unfreeze", (400, "The container is already running"), "Running"),
        ("freeze", (200, ""), "Frozen"),
        ("freeze", frozen, "Frozen"),
        ("start", running, "Frozen"),
        ("unfreeze", (200, ""), "Running"),
        ("restart", (200, ""), "Running"),
        ("freeze", (200, ""), "Frozen"),
        ("stop", (200, ""), "Stopped"),
    ]
    for action, outcome, status in steps:
        assert await client.change("PUT", "/1.0/instances/c1/state", {"action": action}) == outcome
        assert (await client.get("/1.0/instances/c1/state"))["status"] == status
    assert await client.change("PUT", "/1.0/instances/c1/state", {"action": "zork"}) == (400, "Unknown action: 'zork'")
    assert await client.change("PUT", "/1.0/instances/no/state", {"action": "stop"}) == (404, "Instance not found")


@pytest_twisted.ensureDeferred
async def test_only_a_stopped_instance_can_be_deleted(client: Client, state: ServerState) -> None:
    state.add_instance("c1", status=Status.FROZEN)
    assert await client.change("DELETE", "/1.0/instances/c1") == (400, "Instance is running")
    state.set_status("c1", Status.STOPPED)
    assert await client.change("DELETE", "/1.0/instances/c1") == (200, "")
    assert await client.change("DELETE", "/1.0/instances/c1") == (404, "Instance not found")
    assert await client.get(ALL) == []


@pytest_twisted.ensureDeferred
async def test_an_ephemeral_instance_vanishes_when_it_stops(client: Client) -> None:
    await create(client, "c1", ephemeral=True)
    await client.change("PUT", "/1.0/instances/c1/state", {"action": "start"})
    await client.change("PUT", "/1.0/instances/c1/state", {"action": "stop", "force": True})
    assert await client.get(ALL) == []


@pytest_twisted.ensureDeferred
async def test_an_instance_can_be_renamed(client: Client, state: ServerState) -> None:
    for name in ("c1", "c2"):
        state.add_instance(name)
    running = (400, "Renaming of running container not allowed")
    state.set_status("c2", Status.RUNNING)
    assert await client.change("POST", "/1.0/instances/c2", {"name": "c3"}) == running
    assert await client.change("POST", "/1.0/instances/c1", {"name": "c2"}) == (409, 'Name "c2" already in use')
    assert await client.change("POST", "/1.0/instances/c1", {"name": "c9"}) == (200, "")
    assert await client.get("/1.0/instances") == ["/1.0/instances/c9", "/1.0/instances/c2"]


@pytest_twisted.ensureDeferred
async def test_projects_keep_instances_of_one_name_apart(client: Client) -> None:
    shared = {"features.profiles": "false", "features.images": "false"}
    assert await client.change("POST", "/1.0/projects", {"name": "team-a", "config": shared}) == (201, "")
    await create(client, "c1")
    await create(client, "c1", "?project=team-a")
    assert [row["project"] for row in await client.get("/1.0/instances?recursion=1")] == ["default"]
    assert sorted(row["project"] for row in await client.get(ALL)) == ["default", "team-a"]
    assert await client.get("/1.0/instances?project=team-a") == ["/1.0/instances/c1?project=team-a"]
    assert await client.get("/1.0/instances?project=nope&recursion=1") == []
    both = "Cannot specify a project when requesting all projects"
    assert await client.change("GET", f"{ALL}&project=team-a") == (400, both)
    assert (await client.ask("POST", "/1.0/instances?project=nope", {"name": "c", "source": NONE}))[0] == 404
    assert await client.change("DELETE", "/1.0/projects/team-a") == (500, "Only empty projects can be removed")


@pytest_twisted.ensureDeferred
async def test_a_project_has_profiles_of_its_own_unless_told_otherwise(client: Client) -> None:
    await client.change("POST", "/1.0/projects", {"name": "own"})
    await client.change("POST", "/1.0/projects", {"name": "shared", "config": {"features.profiles": "false"}})
    assert (await client.get("/1.0/projects/own"))["config"]["features.profiles"] == "true"
    assert await client.get("/1.0/profiles?project=own") == ["/1.0/profiles/default?project=own"]
    assert (await client.get("/1.0/profiles/default?project=own"))["devices"] == {}
    assert await client.get("/1.0/profiles?project=shared") == ["/1.0/profiles/default"]
    assert (await client.ask("GET", "/1.0/profiles?project=nope"))[0] == 404


@pytest_twisted.ensureDeferred
async def test_the_server_keeps_user_keys_until_they_are_set_to_nothing(client: Client) -> None:
    assert await client.change("PATCH", "/1.0", {"config": {"user.x": "1"}}) == (200, "")
    assert await client.change("PUT", "/1.0", {"config": {"user.y": "2"}}) == (200, "")
    config = (await client.get("/1.0"))["config"]
    assert (config["user.x"], config["user.y"]) == ("1", "2")
    await client.change("PATCH", "/1.0", {"config": {"user.x": ""}})
    assert "user.x" not in (await client.get("/1.0"))["config"]
    unknown = (400, "cannot set 'zork' to '1': unknown key")
    assert await client.change("PATCH", "/1.0", {"config": {"zork": "1"}}) == unknown
    mistyped = (400, "cannot set 'user.n': invalid type float64")
    assert await client.change("PATCH", "/1.0", {"config": {"user.n": 5}}) == mistyped


@pytest_twisted.ensureDeferred
async def test_a_doubtful_row_is_listed_as_it_was_stored(client: Client, state: ServerState) -> None:
    row = {"name": "odd", "project": "default", "status": "Error", "config": None, "expanded_config": None}
    state.add_row(row)
    assert await client.get(ALL) == [row]


@pytest_twisted.ensureDeferred
async def test_paths_and_methods_that_do_not_exist_are_told_apart(client: Client) -> None:
    assert await client.change("GET", "/1.0/nope") == (404, "not found")
    assert await client.change("GET", "/2.0") == (404, "not found")
    assert await client.change("GET", "/1.0/instances/") == (404, "not found")
    assert await client.change("POST", "/1.0/resources", {}) == (501, "not implemented")
    assert await client.change("GET", "/1.0/operations/nope/wait") == (404, "Operation not found")
