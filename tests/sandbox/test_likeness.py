"""The simulated answers have the shape of ones captured from real servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest_twisted

from lxdsched.sandbox import Hardware, ServerState
from tests.sandbox.client import Client

CAPTURED = Path(__file__).parents[1] / "data" / "lxd"


def captured(name: str) -> Any:
    return json.loads((CAPTURED / name).read_text())


def missing(real: Any, simulated: Any, path: str = "") -> list[str]:
    """What a real answer has that a simulated one lacks, or has with another type; of lists the first item counts."""
    if isinstance(real, dict):
        if not isinstance(simulated, dict):
            return [f"{path} is no object"]
        found = [f"{path}.{key}" for key in real if key not in simulated]
        for key in real.keys() & simulated.keys():
            found += missing(real[key], simulated[key], f"{path}.{key}")
        return found
    if isinstance(real, list):
        if not isinstance(simulated, list):
            return [f"{path} is no list"]
        return missing(real[0], simulated[0], f"{path}[]") if real and simulated else []
    same = type(real) is type(simulated) or real is None or simulated is None
    return [] if same else [f"{path} is {type(simulated).__name__}"]


@pytest_twisted.ensureDeferred
async def test_a_listing_has_every_field_of_a_real_one(client: Client, state: ServerState) -> None:
    state.add_instance("c1", {"limits.cpu": "1"})
    rows = captured("limits/instances-recursion1.json")["metadata"]
    row = next(row for row in rows if row["name"] == "l-cpu-count")
    simulated = (await client.get("/1.0/instances?recursion=1&all-projects=true"))[0]
    assert missing(row, simulated) == []
    assert list(row) == list(simulated)


@pytest_twisted.ensureDeferred
async def test_the_envelope_is_written_byte_for_byte_like_the_real_one(client: Client) -> None:
    head = b'{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"",'
    assert await client.raw("/") == head + b'"metadata":["/1.0"]}\n'


@pytest_twisted.ensureDeferred
async def test_the_server_says_of_itself_all_that_a_real_one_says(client: Client) -> None:
    real = captured("auth/trusted-_1.0.json")["metadata"]
    simulated = await client.get("/1.0")
    lacking = missing(real, simulated)
    details = (".environment.kernel_features.", ".environment.lxc_features.")
    assert [each for each in lacking if not each.startswith(details)] == []
    assert set(simulated["api_extensions"]) <= set(real["api_extensions"])


@pytest_twisted.ensureDeferred
async def test_the_resources_are_told_in_the_real_shape(client: Client) -> None:
    real = captured("auth/trusted-_1.0_resources.json")["metadata"]
    assert missing(real, await client.get("/1.0/resources")) == []


def test_threads_are_spread_over_sockets_and_cores_with_their_flags() -> None:
    hardware = Hardware(threads=10, sockets=2, isolated=frozenset({1}), offline=frozenset({9}))
    cpu: Any = hardware.resources()["cpu"]
    assert cpu["total"] == 10
    threads = [t for socket in cpu["sockets"] for core in socket["cores"] for t in core["threads"]]
    assert [thread["id"] for thread in threads] == list(range(10))
    assert [thread["id"] for thread in threads if thread["isolated"]] == [1]
    assert [thread["id"] for thread in threads if not thread["online"]] == [9]
    assert [len(socket["cores"]) for socket in cpu["sockets"]] == [3, 3]
