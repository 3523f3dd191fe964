"""Two replicas behind HAProxy or nginx: what clients notice of a restart, of a death, and of a Redis that is gone."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.e2e.balancer import BALANCERS, Balancer, Replica, missing
from tests.e2e.load import Answer, Client, overbooked
from tests.e2e.replicas import Fleet, simulated, soon
from tests.redis.fixtures import REQUIRE
from tests.redis.server import RedisServer, redis_server

pytestmark = pytest.mark.real_redis

HOSTS, CORES, ASKED = 4, 8, 2
CLIENTS, KEEP = 6, 3
"""Together they want a little more than there is: some are refused."""
ROUNDS = int(os.environ.get("LXDSCHED_ROLLING_ROUNDS", "2"))


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Hosts without any instance."""
    with simulated(HOSTS, CORES) as found:
        yield found


@dataclass
class Site:
    """Two replicas, their Redis, and what stands before them."""

    balancer: Balancer
    replicas: tuple[Replica, Replica]
    redis: RedisServer

    def settled(self) -> bool:
        return self.balancer.settled()

    def reservations(self) -> list[str]:
        """List the ids of what is reserved, as the first replica that runs knows it."""
        _, body = next(each for each in self.replicas if each.runs).daemon.ask("GET", "/reservations")
        return sorted(each["id"] for each in body["reservations"])

    def mend(self) -> None:
        """Start what does not run, and give back what is reserved."""
        if self.redis.pid is None:
            self.redis.start()
        for replica in self.replicas:
            if not replica.runs:
                replica.start()
            soon(replica.readiness, (200, "ready"))
        client = Client()
        for each in self.reservations():
            client.release(self.replicas[0].port, each)
        client.close()
        soon(self.settled, True)


@contextmanager
def site(kind: str, fleet: Fleet, directory: Path) -> Iterator[Site]:
    """Start all of it."""
    if (reason := missing(kind)) is not None:
        (pytest.fail if os.environ.get(REQUIRE) == "1" else pytest.skip)(reason)
    with redis_server() as redis:
        # A machine that is busy with other tests shall not be taken for a Redis that hangs.
        pair = (Replica(fleet, redis.url, "--redis-timeout=5"), Replica(fleet, redis.url, "--redis-timeout=5"))
        try:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(Replica.start, pair))
            with BALANCERS[kind](directory, [each.port for each in pair]) as balancer:
                yield Site(balancer, pair, redis)
        finally:
            for each in pair:
                each.close()


@pytest.fixture(scope="module", params=BALANCERS)
def started(request: pytest.FixtureRequest, fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """All of it behind one of the balancers."""
    with site(request.param, fleet, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture
def running(started: Site) -> Site:
    """It, with nothing reserved."""
    started.mend()
    return started


@dataclass
class Traffic:
    """Clients that ask for places and give them back, through the balancer, each request under a key of its own."""

    port: int
    answers: list[Answer] = field(default_factory=list)
    returns: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    longest: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CLIENTS)]
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join()

    @property
    def codes(self) -> Counter[str]:
        """How often what was answered: the codes of refusals, and `placed`."""
        return Counter(each.code or "placed" for each in list(self.answers))

    @property
    def sent(self) -> int:
        return len(self.answers) + self.returns.total() + len(self.lost)

    @property
    def held(self) -> list[str]:
        """The ids of what was not given back."""
        return sorted(each.id for each in self.answers if each.placed and each.ended is None)

    def flows(self, more: int = 40) -> None:
        """Wait until so many more requests were answered."""
        expected = len(self.answers) + more
        soon(lambda: len(self.answers) >= expected, True)

    def _work(self, number: int) -> None:
        client, random, mine = Client(), Random(number), list[Answer]()
        turn = 0
        while not self._over.wait(random.uniform(0.005, 0.03)):
            turn += 1
            try:
                answer = client.schedule(self.port, cores=ASKED, request_id=f"{number}-{turn}")
                self.answers.append(answer)
                self.longest = max(self.longest, answer.took)
                mine += [answer] if answer.placed else []
                if mine and (len(mine) > KEEP or not answer.placed):
                    oldest = mine.pop(0)
                    oldest.ended = time.monotonic()
                    self.returns[client.release(self.port, oldest.id)] += 1
                    self.longest = max(self.longest, time.monotonic() - oldest.ended)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.lost.append(repr(error))
        client.close()

    def report(self, what: str) -> None:
        """Print the figures, for `pytest -s`."""
        print(
            f"{what}: {self.sent} sent, {len(self.lost)} lost, {dict(self.codes)}, given back {dict(self.returns)},"
            f" longest {self.longest * 1000:.0f} ms"
        )


def test_replicas_are_restarted_one_by_one_under_load_and_no_request_is_lost(running: Site) -> None:
    with Traffic(running.balancer.port) as traffic:
        for _ in range(ROUNDS):
            for replica in running.replicas:
                traffic.flows()
                replica.stop()
                traffic.flows()
                replica.start()
                soon(running.settled, True)
        traffic.flows()
    traffic.report("rolling restarts")
    assert not traffic.lost
    assert set(traffic.codes) <= {"placed", "no_capacity"}
    assert set(traffic.returns) == {204}
    assert not [each for each in traffic.answers if each.degraded]
    assert not overbooked(traffic.answers, CORES, ASKED)
    assert running.reservations() == traffic.held


def test_a_replica_is_killed_under_load_and_no_request_is_lost_or_claims_twice(running: Site) -> None:
    with Traffic(running.balancer.port) as traffic:
        for replica in running.replicas:
            traffic.flows()
            replica.kill()
            traffic.flows(80)
            replica.start()
            soon(running.settled, True)
        traffic.flows()
    traffic.report("kills")
    assert not traffic.lost
    assert set(traffic.codes) <= {"placed", "no_capacity"}
    # Of what was given back on the dead replica, the other one knows nothing any more.
    assert set(traffic.returns) <= {204, 404}
    assert not overbooked(traffic.answers, CORES, ASKED)
    assert running.reservations() == traffic.held


def test_what_a_dead_replica_has_claimed_and_not_answered_is_answered_by_the_other(running: Site) -> None:
    dying, living = running.replicas
    with ThreadPoolExecutor(2) as pool:
        running.redis.suspend()
        # One for each replica, in turn; both wait for Redis then.
        asking = [pool.submit(_schedule, running.balancer.port, key) for key in ("one", "two")]
        time.sleep(1)
        dying.kill()
        running.redis.resume()
        answers = [each.result() for each in asking]
    assert [status for status, _ in answers] == [200, 200]
    _, body = living.daemon.ask("GET", "/reservations")
    made = [(each["request_id"], each["id"]) for each in body["reservations"]]
    told = [answer["reservation"]["id"] for _, answer in answers]
    assert sorted(made) == list(zip(("one", "two"), told, strict=True))
    records = running.redis.cli("HVALS", "{lxdsched}:records")
    by = sorted(json.loads(each)["by"].rpartition(":")[2] for each in records)
    assert by == sorted([str(dying.pid), str(living.pid)])


def test_without_redis_both_replicas_stay_in(running: Site) -> None:
    ports = [each.port for each in running.replicas]
    with Traffic(running.balancer.port) as traffic:
        traffic.flows()
        running.redis.kill()
        gone = time.monotonic()
        for replica in running.replicas:
            soon(replica.readiness, (200, "degraded"))
        # Longer than it takes a check to put one out.
        while time.monotonic() < gone + 2:
            assert running.settled()
            time.sleep(0.1)
        assert all(_answers(port) for port in ports)
        running.redis.start()
        for replica in running.replicas:
            soon(replica.readiness, (200, "ready"))
        back = time.monotonic()
        traffic.flows()
    traffic.report("without Redis")
    assert not traffic.lost
    assert set(traffic.codes) <= {"placed", "no_capacity"}
    # A replica knows nothing of what the other one claims meanwhile.
    assert set(traffic.returns) <= {204, 404}
    assert any(each.degraded for each in traffic.answers)
    assert not [each for each in traffic.answers if each.degraded and each.asked > back]


def _schedule(port: int, key: str) -> tuple[int, Any]:
    client = Client()
    try:
        answer = client.schedule(port, cores=ASKED, request_id=key)
        return answer.status, answer.body
    finally:
        client.close()


def _answers(port: int) -> bool:
    status, body = _schedule(port, f"of {port}")
    return status in {200, 503} and (body.get("degraded") is True)
