"""Who may ask what. The refusals are those of a real LXD 5.0.2."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.web.client import ResponseNeverReceived

from lxdsched.sandbox import KeyPair, SandboxServer, ServerState, make_certificate
from tests.sandbox.client import Client

FORBIDDEN = {
    "type": "error",
    "status": "",
    "status_code": 0,
    "operation": "",
    "error_code": 403,
    "error": "not authorized",
    "metadata": None,
}


@pytest_twisted.ensureDeferred
async def test_a_trusted_client_sees_the_server_and_its_config(client: Client, state: ServerState) -> None:
    state.database.config["user.lxdsched.drain"] = "true"
    server = await client.get("/1.0")
    assert server["auth"] == "trusted"
    assert server["config"] == {"core.https_address": state.address, "user.lxdsched.drain": "true"}
    assert server["environment"]["server_name"] == "vm"
    assert server["environment"]["server_clustered"] is False
    assert server["environment"]["architectures"] == ["x86_64", "i686"]


@pytest.mark.parametrize("who", ["a stranger", "nobody"])
@pytest_twisted.ensureDeferred
async def test_an_untrusted_client_gets_in_but_sees_nothing(
    server: SandboxServer, other_pair: KeyPair, who: str
) -> None:
    client = Client(server.url, other_pair if who == "a stranger" else None)
    assert await client.get("/") == ["/1.0"]
    told = await client.get("/1.0")
    assert told["auth"] == "untrusted"
    assert "environment" not in told
    assert "config" not in told
    for path in ("/1.0/resources", "/1.0/instances", "/1.0/certificates", "/1.0/cluster", "/1.0/operations/x"):
        assert await client.ask("GET", path) == (403, FORBIDDEN)
    assert (await client.ask("PATCH", "/1.0", {}))[0] == 403
    assert (await client.ask("GET", "/1.0/nope"))[0] == 404
    await client.aclose()


@pytest_twisted.ensureDeferred
async def test_a_certificate_outside_its_time_is_worth_nothing(server: SandboxServer, state: ServerState) -> None:
    now = datetime.now(UTC)
    day = timedelta(days=1)
    for start, end in ((now - 2 * day, now - day), (now + day, now + 2 * day)):
        pair = make_certificate("odd", now=now, not_before=start, not_after=end, client=True)
        state.trust(pair.certificate)
        client = Client(server.url, pair)
        assert (await client.get("/1.0"))["auth"] == "untrusted"
        assert (await client.ask("GET", "/1.0/instances"))[0] == 403
        await client.aclose()


@pytest_twisted.ensureDeferred
async def test_trust_is_asked_anew_on_an_open_connection(
    server: SandboxServer, client: Client, state: ServerState, client_pair: KeyPair
) -> None:
    assert (await client.ask("GET", "/1.0/instances"))[0] == 200
    state.distrust(client_pair.fingerprint)
    assert (await client.ask("GET", "/1.0/instances"))[0] == 403
    assert server.requests.connections == 1


@pytest_twisted.ensureDeferred
async def test_certificates_come_and_go_through_the_api(
    server: SandboxServer, client: Client, other_pair: KeyPair
) -> None:
    der = b64encode(other_pair.certificate.public_bytes(Encoding.DER)).decode()
    body = {"type": "client", "name": "x", "certificate": der}
    other = Client(server.url, other_pair)
    assert await other.change("POST", "/1.0/certificates", body) == (403, "not authorized")
    assert await client.change("POST", "/1.0/certificates", body) == (201, "")
    assert await client.change("POST", "/1.0/certificates", body) == (409, "Certificate already in trust store")
    assert (await other.ask("GET", "/1.0/instances"))[0] == 200
    shown = await client.get(f"/1.0/certificates/{other_pair.fingerprint[:12]}")
    assert shown["fingerprint"] == other_pair.fingerprint
    assert shown["restricted"] is False
    assert await client.change("DELETE", f"/1.0/certificates/{other_pair.fingerprint}") == (200, "")
    assert (await other.ask("GET", "/1.0/instances"))[0] == 403
    assert (await client.ask("GET", f"/1.0/certificates/{other_pair.fingerprint}"))[0] == 404
    await other.aclose()


@pytest.mark.parametrize(
    ("change", "status", "problem"),
    [
        ({"type": "server"}, 400, "Invalid certificate type"),
        ({"certificate": "zork"}, 400, "Invalid certificate material: x509: malformed certificate"),
        ({"certificate": "?"}, 400, "illegal base64 data at input byte 0"),
        ({"certificate": ""}, 400, "Client is already trusted"),
        ({"restricted": True, "projects": ["nope"]}, 404, "Project not found"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_makes_no_sense_is_refused(
    client: Client, other_pair: KeyPair, change: dict[str, Any], status: int, problem: str
) -> None:
    der = b64encode(other_pair.certificate.public_bytes(Encoding.DER)).decode()
    body = {"type": "client", "name": "x", "certificate": der} | change
    assert await client.change("POST", "/1.0/certificates", body) == (status, problem)


@pytest_twisted.ensureDeferred
async def test_a_restricted_certificate_reaches_only_its_projects(
    server: SandboxServer, state: ServerState, other_pair: KeyPair
) -> None:
    state.database.add_project("team-a")
    state.add_instance("a1", project="team-a")
    state.add_instance("c1")
    state.trust(other_pair.certificate, restricted=True, projects=["team-a"])
    client = Client(server.url, other_pair)
    told = await client.get("/1.0")
    assert told["auth"] == "trusted"
    assert told["config"] is None
    assert (await client.get("/1.0/resources"))["cpu"]["total"] == 16
    assert (await client.get(f"/1.0/certificates/{other_pair.fingerprint}"))["restricted"] is True
    assert [row["name"] for row in await client.get("/1.0/instances?recursion=1&project=team-a")] == ["a1"]
    for path in ("?all-projects=true", "", "?project=nope"):
        assert await client.ask("GET", f"/1.0/instances{path}") == (403, FORBIDDEN)
    assert await client.get("/1.0/projects") == ["/1.0/projects/team-a"]
    assert (await client.ask("PATCH", "/1.0", {"config": {}}))[0] == 403
    assert (await client.ask("POST", "/1.0/projects", {"name": "p"}))[0] == 403
    await client.aclose()


@pytest_twisted.ensureDeferred
async def test_incus_filters_silently_what_a_restricted_certificate_asks(
    server: SandboxServer, state: ServerState, other_pair: KeyPair
) -> None:
    state.flavour = "incus"
    state.database.add_project("team-a")
    state.add_instance("a1", project="team-a")
    state.add_instance("c1")
    state.trust(other_pair.certificate, restricted=True, projects=["team-a"])
    client = Client(server.url, other_pair)
    told = await client.get("/1.0")
    assert told["config"] == {}
    assert told["environment"]["server"] == "incus"
    rows = await client.get("/1.0/instances?recursion=1&all-projects=true")
    assert [row["name"] for row in rows] == ["a1"]
    status, envelope = await client.ask("GET", "/1.0/instances")
    assert (status, envelope["error"]) == (500, 'User does not have permissions for project "default"')
    await client.aclose()


@pytest_twisted.ensureDeferred
async def test_tls_older_than_1_3_is_refused(server: SandboxServer, client_pair: KeyPair) -> None:
    client = Client(server.url, client_pair, highest=SSL.TLS1_2_VERSION)
    with pytest.raises(ResponseNeverReceived):
        await client.get("/1.0")


@pytest_twisted.ensureDeferred
async def test_a_replaced_certificate_is_seen_by_new_connections_alone(
    server: SandboxServer, client: Client, client_pair: KeyPair, other_pair: KeyPair
) -> None:
    await client.get("/1.0")
    before = client.server_certificate_fingerprint
    server.replace_certificate(other_pair)
    told = await client.get("/1.0")
    assert client.server_certificate_fingerprint == before
    assert told["environment"]["certificate_fingerprint"] == other_pair.fingerprint
    second = Client(server.url, client_pair)
    await second.get("/1.0")
    assert second.server_certificate_fingerprint == other_pair.fingerprint
    await second.aclose()
