"""The routes, and every error that they answer with."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogLevel

from lxdsched.model import State
from lxdsched.sandbox.faults import Delay, Hang, Refuse
from lxdsched.sandbox.records import Status
from tests.conftest import Logged
from tests.support import eventually, the_reactor, until
from tests.web.client import ask, connect
from tests.web.conftest import Served

DOCUMENTED = {"instance_requirements": {"cpu": 2, "memory": 2048}}
FLAT = {"cpu": 2, "memory": 2147483648}


@pytest.mark.parametrize("body", [DOCUMENTED, FLAT])
@pytest_twisted.ensureDeferred
async def test_both_forms_are_answered_with_the_least_allocated_host(served: Served, body: object) -> None:
    one, two = served.hosts
    answer = await ask("POST", served.url + "/schedule", body)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    reservation = answer.body.pop("reservation")
    assert answer.body == {"host": one.url, "name": "node-1", "alternates": [two.url]}
    assert reservation.keys() == {"id", "expires_at"}


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"])
@pytest_twisted.ensureDeferred
async def test_a_body_is_read_as_json_whatever_it_says_it_is(served: Served, kind: str) -> None:
    answer = await ask("POST", served.url + "/schedule", FLAT, content_type=kind)
    assert answer.status == 200


@pytest_twisted.ensureDeferred
async def test_only_target_hosts_are_chosen(served: Served) -> None:
    two = served.hosts[1].url
    answer = await ask("POST", served.url + "/schedule", FLAT | {"target_hosts": [two, "https://elsewhere:8443"]})
    assert (answer.status, answer.body["host"], answer.body["alternates"]) == (200, two, [])


@pytest_twisted.ensureDeferred
async def test_fields_that_are_not_known_are_told(served: Served) -> None:
    answer = await ask("POST", served.url + "/schedule", FLAT | {"memroy": 1})
    assert answer.body["ignored_fields"] == ["memroy"]


@pytest_twisted.ensureDeferred
async def test_a_dry_run_explains_the_hosts_that_were_left_out(served: Served) -> None:
    body = {"cpu": 4, "memory": 1, "dry_run": True}
    answer = await ask("POST", served.url + "/schedule", body)
    one, two = served.hosts
    assert answer.body == {
        "host": two.url,
        "name": "node-2",
        "alternates": [],
        "summary": "1/2 hosts fit: 1 insufficient cpu",
        "hosts": {
            one.url: {"reason": "insufficient_cpu", "message": "4 cores asked, 3 free of 4 (1 allocated)"},
        },
    }


@pytest_twisted.ensureDeferred
async def test_a_strategy_may_be_asked_for_where_it_is_allowed(served: Served) -> None:
    answer = await ask("POST", served.url + "/schedule", FLAT | {"strategy": "least-allocated-percent"})
    assert answer.status == 200
    answer = await ask("POST", served.url + "/schedule", FLAT | {"strategy": "balanced"})
    assert (answer.status, answer.body["code"]) == (400, "invalid_request")
    assert answer.body["error"] == (
        "strategy: 'balanced' is not a strategy that may be asked for here; "
        "these are: least-allocated, least-allocated-percent"
    )


@pytest_twisted.ensureDeferred
async def test_what_no_host_could_ever_hold_is_a_422(served: Served) -> None:
    answer = await ask("POST", served.url + "/schedule", {"cpu": 9, "memory": 1})
    assert (answer.status, answer.phrase) == (422, "Unprocessable Content")
    assert answer.body["error"] == "no suitable node found"
    assert answer.body["code"] == "never_fits"
    assert answer.body["summary"] == "0/2 hosts fit: 2 insufficient cpu"
    assert answer.body["hosts"][served.hosts[1].url] == {
        "reason": "insufficient_cpu",
        "message": "9 cores asked, 5 free of 8 (3 allocated)",
    }


@pytest_twisted.ensureDeferred
async def test_what_would_fit_but_not_now_is_a_503_to_try_again(served: Served) -> None:
    answer = await ask("POST", served.url + "/schedule", {"cpu": 6, "memory": 1})
    assert (answer.status, answer.body["code"], answer.headers["retry-after"]) == (503, "no_capacity", "5")
    assert answer.body["error"] == "no suitable node found"


@pytest_twisted.ensureDeferred
async def test_a_fleet_that_is_gone_is_a_503_of_its_own(served: Served) -> None:
    for host in served.hosts:
        host.fault = Refuse()
        await host.settled()
    answer = await ask("POST", served.url + "/schedule", FLAT)
    assert (answer.status, answer.body["code"], answer.headers["retry-after"]) == (503, "no_host_reachable", "2")
    assert answer.body["error"] == "no host could be asked"
    assert answer.body["summary"] == "0/2 hosts fit: 2 unreachable"
    ready = await ask("GET", served.url + "/readyz")
    assert (ready.status, ready.body["code"], ready.body["error"]) == (503, "not_ready", "no host can be scheduled on")


@pytest_twisted.ensureDeferred
async def test_a_placement_on_a_stale_view_says_so(served: Served) -> None:
    await ask("POST", served.url + "/schedule", FLAT)
    for host in served.hosts:
        host.fault = Hang(path="/1.0/instances")
    answer = await ask("POST", served.url + "/schedule", FLAT)
    assert answer.status == 200
    assert answer.body["stale"]["reason"] == "it answers, but did not list its instances within 1 s"
    assert answer.body["stale"]["age_seconds"] > 0
    shown = await ask("GET", served.url + "/hosts")
    assert [host["state"] for host in shown.body["hosts"]] == ["stale", "stale"]
    assert shown.body["summary"] == {"hosts": 2, "schedulable": 2, "by_state": {"stale": 2}}


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/schedule", 405, "method_not_allowed", "POST"),
        ("DELETE", "/schedule", 405, "method_not_allowed", "POST"),
        ("POST", "/hosts", 405, "method_not_allowed", "GET, HEAD"),
        ("BREW", "/healthz", 405, "method_not_allowed", "GET, HEAD"),
        ("GET", "/nothing", 404, "not_found", None),
        ("POST", "/schedule/", 404, "not_found", None),
        ("GET", "/%ff%fe", 400, "invalid_request", None),
        ("GET", "/" + "x" * 4000, 404, "not_found", None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_every_error_is_json(
    served: Served, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    answer = await ask(method, served.url + path)
    assert (answer.status, answer.body["code"], answer.headers.get("allow")) == (status, code, allow)
    assert isinstance(answer.body["error"], str)
    assert answer.headers["content-type"] == "application/json"


@pytest_twisted.ensureDeferred
async def test_head_has_the_headers_and_no_body(served: Served) -> None:
    answer = await ask("HEAD", served.url + "/healthz")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, None, "16")


@pytest.mark.parametrize("host", ["..,,", "%", "xn--", "a" * 300, "[::1", "ü"])
@pytest_twisted.ensureDeferred
async def test_whatever_the_host_header_says_the_path_is_what_counts(served: Served, host: str) -> None:
    client = await connect(served.port)
    client.send(b"GET /healthz HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: close\r\n\r\n")
    await client.closed
    assert client.answers() == [(200, {"status": "ok"})]


@pytest_twisted.ensureDeferred
async def test_hosts_shows_capacity_allocation_and_state(served: Served) -> None:
    await until(served.fleet, State.LIVE)
    served.hosts[0].state.add_instance("half", {"limits.cpu.allowance": "50ms/100ms", "limits.memory": "1GiB"})
    served.hosts[0].state.add_instance("pool", {"limits.cpu": "2"}, status=Status.FROZEN)
    served.hosts[0].state.add_instance("free")
    await eventually(lambda: served.fleet.snapshot()[0].allocation.instances == 4)
    answer = await ask("GET", served.url + "/hosts")
    assert answer.status == 200
    shown = answer.body["hosts"][0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown.pop("observed_at"))
    assert 0 <= shown.pop("age_seconds") < 60
    gib = 1024**3
    assert shown == {
        "host": served.hosts[0].url,
        "name": "node-1",
        "state": "live",
        "reason": None,
        "cpu": {"total": 4, "capacity": 4, "allocated": 1.5, "reserved": 0, "free": 2.5},
        "memory": {"total": 16 * gib, "capacity": 16 * gib, "allocated": 3 * gib, "reserved": 0, "free": 13 * gib},
        "instances": {"counted": 3, "exempt": 1, "unlimited": 1},
    }
    assert answer.body["summary"] == {"hosts": 2, "schedulable": 2, "by_state": {"live": 2}}


@pytest_twisted.ensureDeferred
async def test_health_asks_no_host(served: Served) -> None:
    await until(served.fleet, State.LIVE)
    before = [host.requests.total for host in served.hosts]
    for path in ("/healthz", "/readyz"):
        assert (await ask("GET", served.url + path)).status == 200
    assert [host.requests.total for host in served.hosts] == before


@pytest_twisted.ensureDeferred
async def test_ready_is_not_before_every_host_was_asked(served: Served) -> None:
    answer = await ask("GET", served.url + "/readyz")
    await served.fleet.views()
    later = await ask("GET", served.url + "/readyz")
    assert (later.status, later.body) == (200, {"status": "ready", "hosts": 2, "schedulable": 2})
    assert answer.status == 200 or answer.body["error"] == "not every host has been asked yet"


@pytest_twisted.ensureDeferred
async def test_a_request_is_logged_once_with_what_was_asked_and_chosen(served: Served, logged: Logged) -> None:
    await ask("POST", served.url + "/schedule", FLAT)
    lines = [event for event in logged if event.get("path") == "/schedule"]
    assert len(lines) == 1
    line = lines[0]
    assert (line["method"], line["status"], line["cpu"], line["memory"]) == ("POST", 200, 2, 2147483648)
    assert (line["host"], line["client"]) == (served.hosts[0].url, "127.0.0.1")
    assert line["log_level"] is LogLevel.info
    assert line["milliseconds"] >= 0


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_logged_with_its_summary(served: Served, logged: Logged) -> None:
    await ask("POST", served.url + "/schedule", {"cpu": 9, "memory": 1})
    (line,) = [event for event in logged if event.get("path") == "/schedule"]
    assert (line["status"], line["code"], line["summary"]) == (422, "never_fits", "0/2 hosts fit: 2 insufficient cpu")


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_away_while_it_waits_breaks_nothing(served: Served) -> None:
    await served.fleet.views()
    served.hosts[0].fault = Delay(seconds=0.3)
    client = await connect(served.port)
    client.send(b"POST /schedule HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + b'{"cpu":1,"memory":1}')
    await deferLater(the_reactor(), 0.1)
    await client.close()
    answer = await ask("POST", served.url + "/schedule", FLAT)
    assert answer.status == 200


@pytest_twisted.ensureDeferred
async def test_what_breaks_inside_is_a_500_in_json_and_a_traceback_in_the_log(
    served: Served, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(served.fleet, "refresh", broken)
    answer = await ask("GET", served.url + "/hosts")
    assert (answer.status, answer.body["code"]) == (500, "internal_error")
    assert "oops" not in answer.body["error"]
    (failure,) = logged.failures()
    assert failure["log_failure"].check(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_many_requests_at_once_get_what_there_is_and_no_more(served: Served) -> None:
    asking = [Deferred.fromCoroutine(ask("POST", served.url + "/schedule", FLAT)) for _ in range(40)]
    answers = [await each for each in asking]
    placed = Counter(answer.body["host"] for answer in answers if answer.status == 200)
    one, two = served.hosts
    assert placed == {one.url: 1, two.url: 2}  # of 3 and of 5 free cores, 2 each
    assert {answer.body["code"] for answer in answers if answer.status != 200} == {"no_capacity"}
