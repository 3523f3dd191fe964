"""Several daemons whose Redis has Sentinels go on at the primary that those choose, by themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.e2e.course import CLIENTS, KEEP, PATIENT, SECONDS, Course, agreed, check_answers, show
from tests.e2e.load import Load
from tests.e2e.replicas import Fleet, Replicas, replicas, soon
from tests.redis.groups import Sentinels, sentinels
from tests.redis.server import RedisServer, redis_server

pytestmark = pytest.mark.real_redis

DEMOTED = 20.0
"""Seconds within which Sentinels make a replica of a primary that comes back; about eight, after which they look."""


@dataclass
class Guarded:
    """A primary and its replica, those who watch them, and the daemons that use them."""

    primary: RedisServer
    replica: RedisServer
    watching: Sentinels
    both: Replicas

    def moved(self) -> bool:
        return self.watching.leader() == (self.replica.host, self.replica.port)


@contextmanager
def guarded(fleet: Fleet) -> Iterator[Guarded]:
    with ExitStack() as stack:
        primary = stack.enter_context(redis_server())
        replica = stack.enter_context(redis_server(replica_of=primary))
        watching = stack.enter_context(sentinels(primary, [replica]))
        both = stack.enter_context(replicas(fleet, [watching.url] * 2, PATIENT))
        yield Guarded(primary, replica, watching, both)


@pytest.mark.parametrize("fault", ["killed", "hung"])
def test_a_primary_that_fails_is_followed_by_another_and_nothing_is_given_away_twice(fleet: Fleet, fault: str) -> None:
    course = Course()
    with guarded(fleet) as it:
        with Load(it.both.ports, CLIENTS, KEEP) as load:
            time.sleep(SECONDS)
            course.struck = time.monotonic()
            if fault == "killed":
                it.primary.kill()
            else:
                it.primary.suspend()
            course.noticed = it.both.become(200, "degraded")
            alone = load.claim()
            soon(it.moved, True)
            course.mended = time.monotonic()
            course.back = it.both.become(200, "ready")
            time.sleep(SECONDS)
            # The old one comes back, and for a while takes itself for the primary that it was.
            if fault == "killed":
                it.primary.start()
            else:
                it.primary.resume()
            time.sleep(SECONDS + 0.5)
            if SECONDS >= 1:
                soon(lambda: it.primary.cli("ROLE")[0], "slave", DEMOTED)
                time.sleep(SECONDS)
        print(f"\nthe Sentinels took {course.mended - course.struck:.2f} s")
        show(f"primary {fault}", load, course)
        check_answers(load, course)
        meanwhile = [each for each in load.answers if course.noticed <= each.asked and each.came < course.mended]
        assert meanwhile
        assert all(each.degraded for each in meanwhile)
        # What the primary did last may not have come to its replica, so what was given back then may be there still.
        listed, held = agreed(it.both), {each.id for each in load.held}
        print(f"  listed {len(listed)}, held {len(held)}")
        assert listed >= held >= {each.id for each in alone}
