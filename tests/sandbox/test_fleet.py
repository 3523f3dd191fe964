"""A fleet listens as one, and its configuration reaches every server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from twisted.internet import reactor  # noqa: TID251  # the tests run on the global reactor
from twisted.internet.error import CannotListenError

from lxdsched.sandbox import KeyPair, SandboxFleet, SandboxServer, ServerState
from lxdsched.sandbox.fleet import plan_fleet
from tests.sandbox.client import Client


def fleet(*args: Any, **options: Any) -> SandboxFleet:
    return SandboxFleet(reactor, *args, **options)  # type: ignore[arg-type]


def load(certificate: Path, key: Path) -> KeyPair:
    loaded = load_pem_private_key(key.read_bytes(), None)
    return KeyPair(load_pem_x509_certificate(certificate.read_bytes()), loaded)  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_the_configuration_reaches_every_server_by_its_fingerprint(tmp_path: Path) -> None:
    servers = fleet()
    await servers.start()
    hosts = json.loads(servers.hosts_json(tmp_path))
    assert [set(host) for host in hosts] == [{"host", "client_cert", "client_key", "fingerprint"}] * 5
    sizes = []
    for host in hosts:
        client = Client(host["host"], load(Path(host["client_cert"]), Path(host["client_key"])))
        assert (await client.get("/1.0"))["auth"] == "trusted"
        assert client.server_certificate_fingerprint == host["fingerprint"]
        resources = await client.get("/1.0/resources")
        sizes.append((resources["cpu"]["total"], resources["memory"]["total"] >> 30))
        await client.aclose()
    assert sizes == [(16, 64), (16, 64), (32, 128), (8, 32), (64, 256)]
    await servers.stop()


@pytest_twisted.ensureDeferred
async def test_the_default_servers_carry_running_pooled_and_unlimited_instances() -> None:
    servers = fleet()
    await servers.start()
    rows = []
    for server in servers.servers:
        client = Client(server.url, servers.client)
        rows += await client.get("/1.0/instances?recursion=1&all-projects=true")
        await client.aclose()
    await servers.stop()
    pooled = [row for row in rows if row["status"] == "Frozen"]
    assert pooled
    assert all({"user.myshoes_resource_type", "user.myshoes_image_alias"} <= row["config"].keys() for row in pooled)
    assert [row for row in rows if row["status"] == "Running" and "user.myshoes_runner_name" in row["config"]]
    assert [row for row in rows if row["status"] == "Running" and "limits.cpu" not in row["expanded_config"]]


def test_a_larger_fleet_is_various_and_the_same_every_time() -> None:
    plans = plan_fleet(40)
    assert plans == plan_fleet(40)
    assert plans[:5] == plan_fleet(5)
    assert len({plan.name for plan in plans}) == 40
    assert len({(plan.threads, plan.load) for plan in plans}) > 30
    assert all(sum(cores for cores, _ in plan.load.running) <= plan.threads for plan in plans)


@pytest_twisted.ensureDeferred
async def test_many_servers_can_share_a_certificate() -> None:
    servers = fleet(50, shared_certificate=True)
    await servers.start()
    assert len({server.url for server in servers.servers}) == 50
    assert len({server.keypair.fingerprint for server in servers.servers}) == 1
    client = Client(servers.servers[49].url, servers.client)
    assert (await client.get("/1.0"))["environment"]["server_name"] == "sandbox-50"
    await client.aclose()
    await servers.stop()


@pytest_twisted.ensureDeferred
async def test_a_fleet_that_cannot_listen_leaves_nothing_open() -> None:
    servers = fleet(3, address="203.0.113.1")
    with pytest.raises(CannotListenError):
        await servers.start()


@pytest_twisted.ensureDeferred
async def test_a_fleet_with_one_port_taken_stops_the_servers_that_it_had_started(
    server: SandboxServer, server_pair: KeyPair
) -> None:
    servers = fleet(2)
    taken = int(server.url.rpartition(":")[2])
    blocked = SandboxServer(ServerState("x"), reactor, keypair=server_pair, port=taken)  # type: ignore[arg-type]
    servers.servers.append(blocked)
    with pytest.raises(CannotListenError):
        await servers.start()


@pytest_twisted.ensureDeferred
async def test_stopping_twice_and_starting_again_do_no_harm(server: SandboxServer, client: Client) -> None:
    url = server.url
    await server.stop()
    await server.stop()
    await server.start()
    await server.start()
    assert server.url == url
    assert (await client.get("/1.0"))["auth"] == "trusted"
