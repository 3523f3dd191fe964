"""What an answer claims, how it is shown, and how it ends."""

from __future__ import annotations

import json
import re

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from lxdsched.model import State
from lxdsched.sandbox.faults import Delay
from lxdsched.sandbox.records import Status
from tests.conftest import Logged
from tests.support import eventually, the_reactor, until
from tests.web.client import ask, connect
from tests.web.conftest import Served

FLAT = {"cpu": 2, "memory": 2147483648}
SIZE = {"limits.cpu": "2", "limits.memory": "2GiB"}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


async def schedule(served: Served, **more: object) -> dict[str, object]:
    answer = await ask("POST", served.url + "/schedule", FLAT | more)
    assert answer.status == 200, answer.body
    return dict(answer.body)


async def reservations(served: Served) -> list[dict[str, object]]:
    answer = await ask("GET", served.url + "/reservations")
    assert answer.status == 200
    return list(answer.body["reservations"])


async def reserved(served: Served) -> list[float]:
    answer = await ask("GET", served.url + "/hosts")
    return [host["cpu"]["reserved"] for host in answer.body["hosts"]]


@pytest_twisted.ensureDeferred
async def test_an_answer_claims_what_it_gives_away_and_shows_it(served: Served) -> None:
    placed = await schedule(served, instance_name="job-1", request_id="r-1")
    (shown,) = await reservations(served)
    assert re.fullmatch(TIME, str(shown.pop("created_at")))
    assert placed["reservation"] == {"id": shown.pop("id"), "expires_at": shown.pop("expires_at")}
    assert shown == {
        "host": served.hosts[0].url,
        "cpu": 2,
        "memory": 2147483648,
        "instance_name": "job-1",
        "request_id": "r-1",
        "client": None,
        "pooled": False,
        "state": "pending",
        "instance": None,
    }
    assert await reserved(served) == [2, 0]


@pytest_twisted.ensureDeferred
async def test_what_was_claimed_can_be_given_back_once(served: Served, logged: Logged) -> None:
    placed = await schedule(served)
    made = placed["reservation"]
    assert isinstance(made, dict)
    gone = await ask("DELETE", f"{served.url}/reservations/{made['id']}")
    assert (gone.status, gone.body) == (204, None)
    assert "content-type" not in gone.headers
    again = await ask("DELETE", f"{served.url}/reservations/{made['id']}")
    assert (again.status, again.body["code"]) == (404, "not_found")
    assert again.body["error"] == "there is no such reservation, or it has expired"
    assert await reservations(served) == []
    assert await reserved(served) == [0, 0]
    assert [event["reservation"] for event in logged if event.get("method") == "DELETE"] == [made["id"]] * 2


@pytest.mark.parametrize(("method", "path"), [("GET", "/reservations/x"), ("POST", "/reservations")])
@pytest_twisted.ensureDeferred
async def test_other_methods_are_told_which_there_are(served: Served, method: str, path: str) -> None:
    answer = await ask(method, served.url + path)
    assert (answer.status, answer.body["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == ("DELETE" if method == "GET" else "GET, HEAD")


@pytest_twisted.ensureDeferred
async def test_the_same_request_id_gets_the_same_answer_and_claims_nothing_again(served: Served) -> None:
    first = await schedule(served, request_id="r-1")
    await schedule(served)
    assert await schedule(served, request_id="r-1") == first
    assert len(await reservations(served)) == 2
    other = await ask("POST", served.url + "/schedule", FLAT | {"request_id": "r-1", "cpu": 1})
    assert (other.status, other.phrase, other.body["code"]) == (409, "Conflict", "request_id_reused")
    assert "'r-1' was used for another demand" in other.body["error"]


@pytest_twisted.ensureDeferred
async def test_a_dry_run_claims_nothing(served: Served) -> None:
    placed = await schedule(served, dry_run=True)
    assert "reservation" not in placed
    assert await reservations(served) == []


@pytest_twisted.ensureDeferred
async def test_an_instance_that_appears_takes_its_reservation_over(served: Served) -> None:
    await schedule(served, instance_name="job-1")
    served.hosts[0].state.add_instance("job-1", SIZE)
    await eventually(lambda: served.fleet.snapshot()[0].allocation.counted == 2)
    assert await reserved(served) == [0, 0]
    (shown,) = await reservations(served)
    assert (shown["state"], shown["instance"]) == ("seen", "default/job-1")


@pytest_twisted.ensureDeferred
async def test_pending_reservations_are_shown_in_the_form_of_the_go_scheduler(served: Served) -> None:
    for _ in range(3):
        await schedule(served)
    answer = await ask("GET", served.url + "/scheduled-resources")
    one, two = (host.url for host in served.hosts)
    resources = answer.body["resources"]
    assert {host: len(made) for host, made in resources.items()} == {one: 1, two: 2}
    times = [made.pop("time") for host in (one, two) for made in resources[host]]
    assert all(re.fullmatch(TIME, time) for time in times)
    assert resources[two] == [FLAT, FLAT]
    assert answer.body["stats"][two] == {
        "host_name": two,
        "total_cpu": 4,
        "total_memory": 2 * FLAT["memory"],
        "count": 2,
        "oldest_request": min(times[1:]),
    }


@pytest_twisted.ensureDeferred
async def test_nothing_claimed_is_an_empty_form(served: Served) -> None:
    answer = await ask("GET", served.url + "/scheduled-resources")
    assert (answer.status, answer.body) == (200, {"resources": {}, "stats": {}})


@pytest_twisted.ensureDeferred
async def test_a_host_with_a_ready_pool_instance_comes_first_and_is_promised_once(served: Served) -> None:
    kind = {"resource_type": "small", "image_alias": "jammy"}
    labels = {"user.myshoes_resource_type": "small", "user.myshoes_image_alias": "jammy"}
    served.hosts[1].state.add_instance("pool-1", SIZE | labels, status=Status.FROZEN)
    await eventually(lambda: served.fleet.snapshot()[1].allocation.exempt == 1)
    first, second = await schedule(served, **kind), await schedule(served, **kind)
    assert (first["host"], first["pooled"]) == (served.hosts[1].url, True)
    assert (second["host"], second["pooled"]) == (served.hosts[0].url, False)
    assert [shown["pooled"] for shown in await reservations(served)] == [True, False]
    assert "pooled" not in await schedule(served)


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_while_its_request_waits_claims_nothing(served: Served) -> None:
    await until(served.fleet, State.LIVE)
    one = served.hosts[0]
    one.fault = Delay(path="/1.0/instances", seconds=0.3)
    one.state.add_instance("late")
    await eventually(lambda: not served.fleet._hosts[one.url].settled)
    body = json.dumps(FLAT).encode()
    client = await connect(served.port)
    client.send(b"POST /schedule HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await deferLater(the_reactor(), 0.1)
    await client.close()
    await eventually(lambda: served.fleet._hosts[one.url].settled)
    assert await reservations(served) == []


@pytest.mark.parametrize(
    "other",
    [
        {"instance_type": "virtual-machine"},
        {"architecture": "aarch64"},
        {"resource_type": "large"},
        {"instance_name": "another"},
        {"memory": "1GiB"},
        {"target_hosts": ["https://elsewhere:8443"]},
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_request_id_stands_for_one_demand(served: Served, other: dict[str, object]) -> None:
    await schedule(served, request_id="r-1")
    answer = await ask("POST", served.url + "/schedule", FLAT | {"request_id": "r-1"} | other)
    assert (answer.status, answer.body["code"]) == (409, "request_id_reused")


@pytest_twisted.ensureDeferred
async def test_a_repeated_request_may_allow_fewer_hosts(served: Served) -> None:
    first = await schedule(served, request_id="r-1")
    again = await schedule(served, request_id="r-1", target_hosts=[first["host"]])
    assert again == first | {"alternates": []}


@pytest_twisted.ensureDeferred
async def test_a_repeat_that_comes_while_the_first_one_waits_gets_its_answer_though_nothing_is_left(
    served: Served,
) -> None:
    await until(served.fleet, State.LIVE)
    one = served.hosts[0]
    one.fault = Delay(path="/1.0/instances", seconds=0.2)
    one.state.add_instance("late")
    await eventually(lambda: not served.fleet._hosts[one.url].settled)
    whole = {"cpu": 5, "memory": 1, "request_id": "r-1"}
    asking = [Deferred.fromCoroutine(ask("POST", served.url + "/schedule", whole)) for _ in range(3)]
    answers = [await each for each in asking]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body["reservation"]["id"] for answer in answers}) == 1


@pytest_twisted.ensureDeferred
async def test_a_refusal_tells_the_fields_that_did_not_count_too(served: Served) -> None:
    answer = await ask("POST", served.url + "/schedule", {"cpu": 9, "memory": 1, "instance_typ": "container"})
    assert (answer.status, answer.body["ignored_fields"]) == (422, ["instance_typ"])


@pytest_twisted.ensureDeferred
async def test_no_answer_moves_the_cursor_of_a_terminal(served: Served) -> None:
    odd = "a\x9b31m\x7f\u202eé"
    asked = json.dumps({"cpu": 1, "memory": 1, "instance_name": odd, odd: 1}).encode()
    too_much = asked.replace(b'"cpu": 1', b'"cpu": 1000')
    client = await connect(served.port)
    for body in (asked, too_much):
        client.send(b"POST /schedule HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    client.send(b"GET /reservations HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await client.closed
    bodies = [part.partition("\n")[0] for part in client.received.decode().split("\r\n\r\n")[1:]]
    assert ["31m" in each for each in bodies] == [True, True, True]
    assert all(each.isprintable() for each in bodies), bodies
    assert [said for _, said in client.answers()][2]["reservations"][0]["instance_name"] == odd
