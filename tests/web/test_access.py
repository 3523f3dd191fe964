"""Who may ask for what, by keys."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from lxdsched.access import Client, Clients, Right
from lxdsched.access.keys import digest, new_key
from lxdsched.access.values import Entry, Key
from lxdsched.sandbox.faults import Delay
from tests.conftest import Logged
from tests.support import eventually
from tests.web.client import Answer, ask, connect
from tests.web.conftest import Served

NOW = datetime.now(UTC)
BODY = {"cpu": 1, "memory": 1048576}
KEYS = {name: new_key(f"0000000{number}") for number, name in enumerate(("ci", "eye", "boss", "old"))}
OPEN = {("GET", "/healthz"), ("GET", "/readyz")}
NEEDS = {
    ("POST", "/schedule"): Right.SCHEDULE,
    ("DELETE", "/reservations/none"): Right.SCHEDULE,
    ("GET", "/reservations"): Right.READ,
    ("GET", "/hosts"): Right.READ,
    ("GET", "/scheduled-resources"): Right.READ,
    ("GET", "/metrics"): Right.READ,
    ("GET", "/openapi.json"): Right.READ,
}


def _entry(name: str, *rights: Right, expires: datetime | None = None) -> Entry:
    key = Key(KEYS[name].split("_")[1], digest(KEYS[name]), NOW, expires)
    return Entry(Client(name, frozenset(rights)), (key,))


def _entries() -> list[Entry]:
    return [
        _entry("ci", Right.SCHEDULE),
        _entry("eye", Right.READ),
        _entry("boss", Right.ADMIN),
        _entry("old", Right.ADMIN, expires=NOW - timedelta(seconds=1)),
    ]


@pytest.fixture
def guarded(served: Served) -> Served:
    """An API with access control."""
    served.site.gate.clients = Clients(_entries())
    return served


def bearer(name: str) -> dict[str, str]:
    """Return the header that sends a client's key."""
    return {"Authorization": f"Bearer {KEYS[name]}"}


async def tried(served: Served, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str | None]:
    """Ask for something; return the status and the code of the error."""
    answer = await ask(method, served.url + path, BODY if method == "POST" else None, headers=headers)
    return answer.status, answer.body.get("code") if isinstance(answer.body, dict) else None


@pytest.mark.parametrize(("method", "path"), [*NEEDS, *OPEN, ("GET", "/nothing"), ("PUT", "/schedule")])
@pytest_twisted.ensureDeferred
async def test_without_a_key_there_is_health_and_nothing_else(guarded: Served, method: str, path: str) -> None:
    expected = (200, None) if (method, path) in OPEN else (401, "unauthenticated")
    await guarded.fleet.views()
    assert await tried(guarded, method, path, {}) == expected


@pytest_twisted.ensureDeferred
async def test_a_connection_is_known_by_who_has_asked_last_on_it(guarded: Served) -> None:
    client = await connect(guarded.port)
    for name, known in (("eye", "eye"), ("", ""), ("old", ""), ("boss", "boss")):
        key = f"Authorization: Bearer {KEYS[name]}\r\n" if name else ""
        client.send(f"GET /reservations HTTP/1.1\r\nHost: here\r\n{key}\r\n".encode())
        await client.until(b"}\n")
        client.received = b""
        (channel,) = guarded.site.channels
        assert channel.guest is not None
        assert channel.guest.caller == known
    await client.close()


@pytest.mark.parametrize(("name", "right"), [("ci", Right.SCHEDULE), ("eye", Right.READ), ("boss", Right.ADMIN)])
@pytest_twisted.ensureDeferred
async def test_a_client_may_do_what_it_has_the_right_to_and_no_more(guarded: Served, name: str, right: Right) -> None:
    await guarded.fleet.views()
    for (method, path), needed in NEEDS.items():
        status, code = await tried(guarded, method, path, bearer(name))
        if right in (needed, Right.ADMIN):
            assert status in (200, 404), path  # there is no such reservation
        else:
            assert (status, code) == (403, "forbidden"), path


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (f"Bearer {new_key('0000000f')}", "the key 0000000f is not known"),
        (f"Bearer {KEYS['ci'][:-1]}x", "the key 00000000 is not known"),
        (f"Bearer {KEYS['old']}", "the key 00000003 expired on"),
        ("Bearer", "does not have the form of one"),
        ("Bearer \x00", "does not have the form of one"),
        (f"Bearer {'x' * 5000}", "does not have the form of one"),
        ("Basic !", "is neither"),
        ("Basic " + b64encode(b"\xff:\xff").decode(), "is neither"),
        ("Basic " + b64encode(b"no colon").decode(), "does not have the form of one"),
        ("Negotiate abc", "is neither"),
        ("", "is neither"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_wrong_key_is_refused_and_never_shown(guarded: Served, logged: Logged, header: str, why: str) -> None:
    header = header.replace("\x00", "\x01")
    answer = await ask("GET", guarded.url + "/hosts", headers={"Authorization": header})
    assert (answer.status, answer.body["code"]) == (401, "unauthenticated")
    assert why in answer.body["error"]
    assert answer.headers["www-authenticate"].startswith('Bearer realm="lxdsched"')
    secret = header.rpartition("_")[2]
    if len(secret) > 20:
        assert secret not in str(answer.body)
        assert secret not in str(list(logged))


@pytest_twisted.ensureDeferred
async def test_of_two_keys_neither_counts(guarded: Served) -> None:
    client = await connect(guarded.port)
    keys = "".join(f"Authorization: {bearer(name)['Authorization']}\r\n" for name in ("boss", "ci"))
    client.send(f"GET /hosts HTTP/1.1\r\n{keys}Connection: close\r\n\r\n".encode())
    await client.closed
    ((status, body),) = client.answers()
    assert (status, body["error"]) == (401, "there is more than one Authorization header")


@pytest_twisted.ensureDeferred
async def test_a_key_may_be_the_password_of_basic_authentication(guarded: Served) -> None:
    for user in ("ci", "whoever", ""):
        basic = b64encode(f"{user}:{KEYS['ci']}".encode()).decode()
        assert await tried(guarded, "POST", "/schedule", {"Authorization": f"basic {basic}"}) == (200, None)


@pytest_twisted.ensureDeferred
async def test_a_key_that_is_revoked_is_worth_nothing_from_then_on(guarded: Served) -> None:
    assert await tried(guarded, "GET", "/hosts", bearer("eye")) == (200, None)
    guarded.site.gate.clients = Clients([_entry("ci", Right.SCHEDULE)])
    assert await tried(guarded, "GET", "/hosts", bearer("eye")) == (401, "unauthenticated")


@pytest_twisted.ensureDeferred
async def test_who_asked_is_in_the_line_of_the_log(guarded: Served, logged: Logged) -> None:
    await tried(guarded, "GET", "/hosts", bearer("ci"))
    await tried(guarded, "GET", "/hosts", {})
    lines = [event for event in logged if event.get("path") == "/hosts"]
    assert [(line["status"], line.get("caller")) for line in lines] == [(403, "ci"), (401, None)]


async def placed(served: Served, name: str | None, **more: object) -> Answer:
    """Ask for a place as a client, or nobody."""
    headers = {} if name is None else bearer(name)
    return await ask("POST", served.url + "/schedule", BODY | {"request_id": "r-1"} | more, headers=headers)


@pytest_twisted.ensureDeferred
async def test_a_request_id_is_its_clients_own(guarded: Served) -> None:
    first = {name: await placed(guarded, name) for name in ("ci", "boss")}
    assert [each.status for each in first.values()] == [200, 200]
    assert first["ci"].body["reservation"] != first["boss"].body["reservation"]
    for name, each in first.items():
        assert (await placed(guarded, name)).body == each.body
        other = await placed(guarded, name, cpu=2)
        assert (other.status, other.body["code"]) == (409, "request_id_reused")
        assert "'r-1'" in other.body["error"], "as it was sent"
    listed = await ask("GET", guarded.url + "/reservations", headers=bearer("eye"))
    assert [(each["id"], each["client"], each["request_id"]) for each in listed.body["reservations"]] == [
        (each.body["reservation"]["id"], name, "r-1") for name, each in first.items()
    ]


@pytest_twisted.ensureDeferred
async def test_what_another_client_has_asked_for_under_the_same_request_id_does_not_matter(guarded: Served) -> None:
    assert (await placed(guarded, "boss", cpu=2)).status == 200
    assert (await placed(guarded, "ci")).status == 200


@pytest_twisted.ensureDeferred
async def test_the_same_request_id_of_two_clients_is_two_requests_also_while_both_wait(guarded: Served) -> None:
    await guarded.fleet.views()
    for host in guarded.hosts:
        host.fault = Delay(seconds=0.3)
    asking = gatherResults([Deferred.fromCoroutine(placed(guarded, name)) for name in ["ci", "boss"] * 4])
    await eventually(lambda: guarded.site.in_flight == 8)
    answers = await asking
    ids = [each.body["reservation"]["id"] for each in answers]
    assert (len(set(ids[0::2])), len(set(ids[1::2])), len(set(ids))) == (1, 1, 2)


@pytest_twisted.ensureDeferred
async def test_a_client_may_renew_its_key_and_its_requests_stay_its_own(guarded: Served) -> None:
    first = await placed(guarded, "ci")
    (old,) = [each for each in _entries() if each.client.name == "ci"]
    (new,) = [each for each in _entries() if each.client.name == "boss"]
    guarded.site.gate.clients = Clients([replace(old, keys=new.keys)])
    assert (await placed(guarded, "boss")).body == first.body


@pytest_twisted.ensureDeferred
async def test_what_was_asked_without_access_control_is_no_clients_whatever_the_request_id(guarded: Served) -> None:
    first = await placed(guarded, "ci")
    clients, guarded.site.gate.clients = guarded.site.gate.clients, None
    ids = [first.body["reservation"]["id"]]
    for request_id in ("r-1", '["ci","r-1"]'):
        answer = await placed(guarded, None, request_id=request_id)
        assert (await placed(guarded, None, request_id=request_id)).body == answer.body
        ids.append(answer.body["reservation"]["id"])
    assert len(set(ids)) == 3
    guarded.site.gate.clients = clients
    assert (await placed(guarded, "ci")).body == first.body


@pytest_twisted.ensureDeferred
async def test_a_reservation_is_given_back_by_any_client_that_knows_its_id(guarded: Served) -> None:
    first = await placed(guarded, "boss")
    path = f"/reservations/{first.body['reservation']['id']}"
    assert (await tried(guarded, "DELETE", path, bearer("ci")))[0] == 204
    assert (await tried(guarded, "DELETE", path, bearer("boss")))[0] == 404
    assert (await placed(guarded, "boss")).body["reservation"] != first.body["reservation"]


@pytest_twisted.ensureDeferred
async def test_metrics_may_be_open_to_everybody(guarded: Served) -> None:
    guarded.site.gate._unguarded |= {b"/metrics"}
    assert (await tried(guarded, "GET", "/metrics", {}))[0] == 200


@pytest_twisted.ensureDeferred
async def test_a_site_for_metrics_has_nothing_else(served: Served) -> None:
    served.site.paths = frozenset({b"/metrics", b"/healthz"})
    assert (await tried(served, "GET", "/metrics", {}))[0] == 200
    for path in ("/hosts", "/metrics/", "/healthz/x", "/%6detrics/../hosts"):
        client = await connect(served.port)
        client.send(f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        await client.closed
        ((status, body),) = client.answers()
        assert (status, body["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({}, 200),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_page_of_another_origin_cannot_have_a_browser_ask(
    served: Served, headers: dict[str, str], status: int
) -> None:
    assert (await tried(served, "POST", "/schedule", headers))[0] == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/reservations/none", 403),
        ("GET", "/hosts", 200),
        ("HEAD", "/hosts", 200),
        ("OPTIONS", "/hosts", 405),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_page_of_another_origin_may_look_and_do_nothing(
    served: Served, method: str, path: str, status: int
) -> None:
    await served.fleet.views()
    assert (await tried(served, method, path, {"Origin": "https://evil.example"}))[0] == status


@pytest_twisted.ensureDeferred
async def test_a_page_of_our_own_may_ask(served: Served) -> None:
    assert (await tried(served, "POST", "/schedule", {"Origin": served.url}))[0] == 200
