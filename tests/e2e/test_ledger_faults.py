"""Whatever becomes of Redis, every request is answered in time, and honestly."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.course import CLIENTS, KEEP, PATIENT, REFUSED, SECONDS, TIMEOUT, Course, agreed, check_answers, show
from tests.e2e.daemon import TOLD_TO_END
from tests.e2e.load import Answer, Client, Load, overbooked
from tests.e2e.replicas import ASKED, CORES, Fleet, replicas, soon
from tests.e2e.slow import SlowRelay, slow_relay
from tests.redis.server import RedisServer, redis_server

pytestmark = pytest.mark.real_redis


@dataclass
class Place:
    """The Redis, what leads to it, and another one that is empty."""

    redis: RedisServer
    relay: SlowRelay
    other: RedisServer

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.relay.port}"


@dataclass(frozen=True)
class Fault:
    """What may happen to a Redis. `losing` faults lose what it held; with `unseen` ones nobody needs to notice."""

    name: str
    strike: Callable[[Place], object]
    mend: Callable[[Place], object]
    losing: bool = False
    unseen: bool = False
    passing: bool = False  # over before anybody could look

    def __str__(self) -> str:
        return self.name


def nothing(_: Place) -> None:
    """Do nothing."""


def delay(seconds: float) -> Callable[[Place], None]:
    def strike(place: Place) -> None:
        place.relay.delay = seconds

    return strike


def say(*command: str) -> Callable[[Place], None]:
    def strike(place: Place) -> None:
        place.redis.cli(*command)

    return strike


def fill_disk(place: Place) -> None:
    """Have it fail to save: what is in its file's place cannot be replaced."""
    place.redis.cli("CONFIG", "SET", "save", "3600 1000000", "stop-writes-on-bgsave-error", "yes")
    saved = place.redis.directory / "dump.rdb"
    saved.unlink(missing_ok=True)
    saved.mkdir()
    save(place.redis, "err")


def free_disk(place: Place) -> None:
    (place.redis.directory / "dump.rdb").rmdir()
    save(place.redis, "ok")


def save(redis: RedisServer, outcome: str) -> None:
    redis.cli("BGSAVE")
    redis.await_reply(
        lambda said: f"rdb_last_bgsave_status:{outcome}" in said and "rdb_bgsave_in_progress:0" in said,
        "INFO",
        "persistence",
    )


def follow(place: Place) -> None:
    place.redis.cli("REPLICAOF", place.other.host, place.other.port)


FAULTS = [
    Fault("killed", lambda place: place.redis.kill(), lambda place: place.redis.start(), losing=True),
    Fault("hung", lambda place: place.redis.suspend(), lambda place: place.redis.resume()),
    Fault("a little slow", delay(0.02), delay(0), unseen=True),
    Fault("too slow", delay(0.6 * TIMEOUT), delay(0)),
    Fault("full", say("CONFIG", "SET", "maxmemory", "1"), say("CONFIG", "SET", "maxmemory", "0")),
    Fault("read-only", follow, say("REPLICAOF", "NO", "ONE"), losing=True),
    Fault("scripts flushed", say("SCRIPT", "FLUSH"), nothing, unseen=True),
    Fault("data flushed", say("FLUSHALL"), nothing, losing=True, passing=True),
    Fault("disk full", fill_disk, free_disk),
    Fault("network cut", lambda place: place.relay.hold(), lambda place: place.relay.flow()),
]


@pytest.fixture(scope="module")
def old() -> Iterator[Place]:
    """Run a Redis behind a relay, and another. It has been in use for a while: nobody doubts what it holds."""
    with redis_server() as redis, redis_server() as other, slow_relay(redis.port) as relay:
        yield Place(redis, relay, other)


@pytest.fixture
def place(old: Place) -> Iterator[Place]:
    """The same, as it is without any fault, and without any reservation."""
    yield old
    old.relay.delay = 0.0
    old.relay.flow()
    if old.redis.pid is None:
        old.redis.start()
    old.redis.resume()
    if old.redis.cli("HLEN", "{lxdsched}:records"):
        old.redis.cli("FLUSHALL")  # a test has failed


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_redis_that_fails_costs_no_answer_and_is_used_again_by_itself(
    fleet: Fleet, place: Place, fault: Fault
) -> None:
    course, alone = Course(), list[Answer]()
    with replicas(fleet, [place.url] * 2, PATIENT) as both:
        with Load(both.ports, CLIENTS, KEEP) as load:
            time.sleep(SECONDS)
            course.struck = time.monotonic()
            fault.strike(place)
            if not fault.unseen and not fault.passing:
                course.noticed = both.become(200, "degraded")
                alone = load.claim()
            time.sleep(SECONDS)
            course.mended = time.monotonic()
            fault.mend(place)
            course.back = both.become(200, "ready")
            time.sleep(SECONDS)
        show(fault.name, load, course)
        check_answers(load, course)
        if fault.unseen:
            assert not any(each.degraded for each in load.answers)
        elif not fault.passing:
            meanwhile = [each for each in load.answers if course.noticed <= each.asked and each.came < course.mended]
            assert meanwhile
            assert all(each.degraded for each in meanwhile)
        # Whoever claimed it, and when: all know it now. What was given back just before all was lost may be there too.
        listed, held = agreed(both), {each.id for each in load.held}
        print(f"  listed {len(listed)}, held {len(held)}")
        assert listed >= held >= {each.id for each in alone}
        assert fault.losing or listed == held
        both.release_all()
        assert [each.running.end() for each in both.each] == [TOLD_TO_END] * 2


@pytest.mark.parametrize("fault", [each for each in FAULTS if each.name in {"killed", "hung"}], ids=str)
def test_who_is_told_to_refuse_promises_nothing_that_others_could_not_hear_of(
    fleet: Fleet, place: Place, fault: Fault
) -> None:
    course = Course()
    with replicas(fleet, [place.url] * 2, PATIENT, "--on-ledger-failure=refuse") as both:
        with Load(both.ports, CLIENTS, KEEP) as load:
            time.sleep(SECONDS)
            course.struck = time.monotonic()
            fault.strike(place)
            course.noticed = both.become(503, None)
            time.sleep(SECONDS)
            course.mended = time.monotonic()
            fault.mend(place)
            course.back = both.become(200, "ready")
            time.sleep(SECONDS)
        show(f"{fault.name}, refused", load, course)
        check_answers(load, course, REFUSED, {204, 404, 503})
        assert not any(each.placed and each.degraded for each in load.answers)
        refused = [each for each in load.answers if each.code == "ledger_unavailable"]
        assert all((each.status, each.retry_after) == (503, "1") for each in refused)
        meanwhile = [each for each in load.answers if course.noticed <= each.asked and each.came < course.mended]
        assert meanwhile
        assert {each.code for each in meanwhile} == {"ledger_unavailable"}
        listed, held = agreed(both), {each.id for each in load.held}
        unsure = {each.id for each in load.answers if each.placed and each.ended is not None and not each.given_back}
        assert held <= listed
        assert fault.losing or listed <= held | unsure
        both.release_all()


def test_a_redis_that_is_not_there_yet_is_joined_when_it_comes(fleet: Fleet) -> None:
    redis = RedisServer()
    try:
        with replicas(fleet, [redis.url] * 2, PATIENT, ready="degraded") as both:
            client = Client()
            alone = [client.schedule(port) for port in both.ports for _ in range(5)]
            assert all(each.placed and each.degraded for each in alone)
            redis.start()
            both.become(200, "ready")
            soon(both.listed, [{each.id for each in alone}] * 2)
            # Both chose among the same hosts, and neither knew of the other; now they do.
            shared = [client.schedule(port) for port in both.ports for _ in range(3)]
            client.close()
            assert all(each.placed and not each.degraded for each in shared)
            assert set(Counter(each.host for each in [*alone, *shared]).values()) == {4}
    finally:
        redis.cleanup()


def test_nobody_is_sure_of_a_redis_that_was_lost_before_the_others_can_have_come_back(
    fleet: Fleet, place: Place
) -> None:
    client, answers = Client(), list[Answer]()
    with (
        slow_relay(place.redis.port) as relay,
        replicas(fleet, [place.url, f"redis://127.0.0.1:{relay.port}"], PATIENT) as both,
    ):
        one, other = both.ports
        # What one has claimed last, nobody else has heard of when Redis is gone, and it comes back later.
        place.relay.hold()
        answers += [client.schedule(other) for _ in range(16)]
        assert not any(each.degraded for each in answers)
        place.redis.kill()
        place.relay.flow()
        relay.delay = 0.1
        place.redis.start()
        soon(lambda: both.readiness()[1], (200, "degraded"))
        while both.readiness() != [(200, "ready")] * 2:
            answers.append(client.schedule(one))
            time.sleep(0.02)
        answers += [client.schedule(one) for _ in range(16)]
        both.release_all()
    client.close()
    assert overbooked([each for each in answers if not each.degraded], CORES, ASKED) == {}


def test_what_is_given_back_while_a_daemon_is_coming_back_stays_given_back(fleet: Fleet, place: Place) -> None:
    client = Client()
    with replicas(fleet, [place.url] * 2, PATIENT) as both:
        place.redis.kill()
        both.become(200, "degraded")
        claims = [client.schedule(both.ports[0], cores=1) for _ in range(60)]
        place.relay.delay = 0.2 * TIMEOUT
        place.redis.start()
        # It takes them some of these moments to come back.
        while claims and both.readiness()[0] != (200, "ready"):
            claim = claims.pop()
            assert client.release(claim.port, claim.id) == 204
            time.sleep(0.02)
        both.become(200, "ready")
        place.relay.delay = 0.0
        assert agreed(both) == {each.id for each in claims}
        both.release_all()
    client.close()


def test_what_fits_is_never_refused_because_redis_has_lost_all(fleet: Fleet, place: Place) -> None:
    with replicas(fleet, [place.url] * 2, PATIENT) as both:
        with Load(both.ports, clients=8, keep=0, pause=0.001) as load:
            for _ in range(4):
                time.sleep(0.3)
                place.redis.cli("FLUSHALL")
        both.release_all()
        assert load.unanswered == []
        assert [(each.status, each.body) for each in load.answers if not each.placed] == []
