"""Several daemons on one Redis give away what there is, all of it, and nothing twice."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.e2e.daemon import TOLD_TO_END
from tests.e2e.load import Answer, Client, burst, overbooked
from tests.e2e.replicas import ASKED, CORES, EACH, ROOM, Fleet, Replicas, replicas, simulated, soon
from tests.redis.server import RedisServer, redis_server

pytestmark = pytest.mark.real_redis

ROUNDS = int(os.environ.get("LXDSCHED_ROUNDS", "2"))
"""How often each burst is repeated, and half as often the one in which a daemon is killed."""
PATIENT = "--redis-timeout=2"
"""These are about what is shared: a machine that is busy with other things is not to look like a Redis that is gone."""
BRIEF = 3.0
"""Seconds for which claims live where that is waited for."""
RECORDS = "{lxdsched}:records"
"""The key of what is reserved."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with simulated() as it:
        yield it


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def three(fleet: Fleet, redis: RedisServer) -> Iterator[Replicas]:
    with replicas(fleet, [redis.url] * 3, PATIENT) as it:
        yield it
        assert [each.running.end() for each in it.each] == [TOLD_TO_END] * 3


@pytest.fixture
def both(three: Replicas) -> Iterator[Replicas]:
    """Two of the three; the third only listens."""
    yield Replicas(three.each[:2])
    three.release_all()


@pytest.fixture
def all_three(three: Replicas) -> Iterator[Replicas]:
    yield three
    three.release_all()


def show(what: str, answers: Sequence[Answer], seconds: float) -> None:
    took = sorted(each.took * 1000 for each in answers)
    codes = Counter(each.code or "placed" for each in answers)
    print(
        f"{what}: {dict(codes)}, degraded {sum(each.degraded for each in answers)}, {seconds:.2f} s, "
        f"p50 {took[len(took) // 2]:.0f} ms, longest {took[-1]:.0f} ms"
    )


def placed(answers: Sequence[Answer]) -> list[Answer]:
    return [each for each in answers if each.placed]


def hosts_of(answers: Sequence[Answer]) -> Counter[str]:
    return Counter(each.host for each in answers if each.placed)


def free_of(shown: dict[str, Any]) -> dict[str, Any]:
    """Take what replicas must agree on from an answer of `/hosts`."""
    return {each["host"]: (each["cpu"], each["memory"], each["instances"]["counted"]) for each in shown["hosts"]}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("requests", [ROOM, 3 * ROOM])
def test_a_burst_over_several_daemons_fills_the_fleet_to_the_brim_and_no_further(
    fleet: Fleet, all_three: Replicas, count: int, requests: int
) -> None:
    for number in range(ROUNDS):
        began = time.monotonic()
        answers, unanswered = burst(all_three.ports[:count], requests)
        show(f"round {number}, {requests} over {count}", answers, time.monotonic() - began)
        assert unanswered == []
        assert not any(each.degraded for each in answers)
        assert hosts_of(answers) == dict.fromkeys(fleet.names, EACH)
        assert {each.code for each in answers if not each.placed} == ({"no_capacity"} if requests > ROOM else set())
        assert all_three.listed() == [{each.id for each in placed(answers)}] * 3
        all_three.release_all()


def test_a_daemon_that_is_killed_in_a_burst_has_given_nothing_away_twice_and_keeps_nothing_for_ever(
    fleet: Fleet, redis: RedisServer
) -> None:
    for number in range(max(ROUNDS // 2, 1)):
        with replicas(fleet, [redis.url] * 2, PATIENT, f"--reservation-ttl={BRIEF}") as both:
            victim = both.each[0].running.process
            began = time.monotonic()
            # Once Redis has a part of it, the rest is still to come.
            killing = threading.Thread(target=kill_when, args=(redis, 20, victim))
            killing.start()
            answers, unanswered = burst(both.ports, 2 * ROOM)
            killing.join()
            show(f"killed in round {number}, {len(unanswered)} lost their daemon", answers, time.monotonic() - began)
            assert unanswered, "it was killed too late"
            assert {each.code for each in answers if not each.placed} <= {"no_capacity"}
            assert not any(each.degraded for each in answers)
            assert overbooked(answers, CORES, ASKED, BRIEF) == {}
            # What was claimed for those who never heard of it is the only thing that is missing.
            assert ROOM - len(unanswered) <= len(placed(answers)) <= ROOM
            left = Replicas(both.each[1:])
            assert len(left.listed()[0]) == ROOM
            soon(left.listed, [set[str]()])
            again, _ = burst(left.ports, ROOM)
            assert hosts_of(again) == dict.fromkeys(fleet.names, EACH)
            left.release_all()


def kill_when(redis: RedisServer, count: int, victim: Any) -> None:
    until = time.monotonic() + 20
    while redis.cli("HLEN", RECORDS) < count and time.monotonic() < until:
        time.sleep(0.001)
    victim.kill()
    victim.wait()


def test_the_same_request_at_two_daemons_at_once_is_one_reservation(both: Replicas) -> None:
    answers: list[Answer] = []
    together = threading.Barrier(2)

    def work(port: int) -> None:
        client = Client()
        for number in range(25):
            together.wait(20)
            answers.append(client.schedule(port, request_id=f"job-{number}"))
        client.close()

    threads = [threading.Thread(target=work, args=(port,)) for port in both.ports]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert [each.status for each in answers] == [200] * 50
    assert set(Counter(each.id for each in answers).values()) == {2}
    assert both.listed() == [{each.id for each in answers}] * 2


def test_what_one_daemon_has_given_away_is_given_back_at_another(both: Replicas) -> None:
    one, other = both.ports
    client = Client()
    for _ in range(20):
        answer = client.schedule(one)
        assert client.release(other, answer.id) == 204
        assert client.release(one, answer.id) == 404
    client.close()
    assert both.listed() == [set()] * 2


def test_all_daemons_show_the_same(fleet: Fleet, all_three: Replicas) -> None:
    answers, _ = burst(all_three.ports, ROOM // 2)
    assert len(placed(answers)) == ROOM // 2
    one, *others = all_three.reservations()
    assert set(one) == {each.id for each in placed(answers)}
    for other in others:
        # Each has a clock of its own.
        timeless = [
            {key: {k: v for k, v in each.items() if not k.endswith("_at")} for key, each in found.items()}
            for found in (one, other)
        ]
        assert timeless[0] == timeless[1]
    shown = [free_of(each.ask("GET", "/hosts")[1]) for each in all_three.each]
    assert shown[1:] == shown[:1] * 2
    taken = hosts_of(answers)
    assert {host: cpu["reserved"] for host, (cpu, _, _) in shown[0].items()} == {
        host: ASKED * taken[host] for host in fleet.names
    }


def test_an_instance_takes_its_reservation_over_for_all_daemons(fleet: Fleet, all_three: Replicas) -> None:
    client = Client()
    answer, other = client.schedule(all_three.ports[0]), client.schedule(all_three.ports[1])
    client.close()
    fleet.create(answer.host, "by-hand", ASKED)
    try:
        soon(
            lambda: [found[answer.id]["state"] for found in all_three.reservations()],
            ["seen"] * 3,
        )
        for each in all_three.each:
            soon(lambda each=each: each.host(answer.host)["cpu"]["allocated"], ASKED)  # type: ignore[misc]
            assert each.host(answer.host)["cpu"]["reserved"] == 0
        assert [found[answer.id]["instance"] for found in all_three.reservations()] == ["default/by-hand"] * 3
        assert [found[other.id]["state"] for found in all_three.reservations()] == ["pending"] * 3
    finally:
        fleet.delete(answer.host, "by-hand")
    for each in all_three.each:
        soon(lambda each=each: each.host(answer.host)["cpu"]["allocated"], 0)  # type: ignore[misc]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_requests_at_daemons_in_turn_spread_as_evenly_as_at_one(fleet: Fleet, all_three: Replicas, count: int) -> None:
    client = Client()
    answers = [client.schedule(all_three.ports[number % count]) for number in range(2 * len(fleet.names))]
    client.close()
    assert hosts_of(answers[: len(fleet.names)]) == dict.fromkeys(fleet.names, 1)
    assert hosts_of(answers) == dict.fromkeys(fleet.names, 2)
