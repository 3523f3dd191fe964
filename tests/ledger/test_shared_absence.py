"""Replicas that lose Redis and come back, and a Redis that loses what it knew."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred

from lxdsched.ledger.book import LedgerUnavailableError
from lxdsched.ledger.exchange import MOST_BROUGHT
from lxdsched.ledger.presence import MOST_PAUSE, OPENING, SETTLING
from lxdsched.model import Instance, Kind, Resources
from tests.ledger.bench import LIFE, ROOMY, at_once
from tests.ledger.replica import Replica
from tests.ledger.stopped import StoppedRedis
from tests.redis.server import RedisServer
from tests.support import GIB

pytestmark = pytest.mark.real_redis

TWO = Resources(2000, 2 * GIB)
UBUNTU = Kind("small", "ubuntu")


def test_what_was_claimed_by_a_call_whose_answer_was_lost_is_given_back_and_the_request_answered_all_the_same(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    one, other = pair
    one.wire.deaf = True
    asking = one.ask()
    assert asking.made is not None
    assert one.ledger.degraded
    assert len(other.listed()) == 1, "it was claimed in Redis, too, by another id"
    assert other.listed()[0].id != asking.made.id
    one.wire.deaf = False
    stopped.advance(1)
    assert [each.id for each in other.listed()] == [asking.made.id]
    assert other.claimed() == one.claimed() == [2, 0, 0]


def test_a_call_that_is_done_only_after_it_was_given_back_claims_nothing(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    """A Redis that hung goes on with what it was told before, after those who had asked have come back."""
    one, other = pair
    one.wire.hold()
    asking = one.ask()
    late = list(one.wire.held)
    one.wire.lose("it hangs")
    assert asking.made is not None
    one.wire.release()
    stopped.advance(1)
    for call in late:
        one.wire.do(call)
    assert [each.id for each in other.listed()] == [asking.made.id]


def test_what_is_claimed_alone_is_brought_along_and_what_others_claimed_meanwhile_is_heard_of(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    one, other = pair
    first = other.placed()
    one.placed(1)
    one.wire.cut = True
    made = one.placed(pool=UBUNTU, instance_name="job-1", request_id="r-1", client="ci")
    assert one.ledger.degraded
    second = other.placed(4)
    one.wire.cut = False
    stopped.advance(1)
    assert {each.id for each in one.listed()} == {each.id for each in other.listed()} >= {first.id, made.id, second.id}
    (brought,) = [each for each in other.listed() if each.id == made.id]
    assert replace(brought, created_at=made.created_at, expires_at=made.expires_at) == made
    assert brought.expires_at == pytest.approx(made.expires_at, abs=0.01)
    assert one.claimed() == other.claimed()
    assert other.placed(pool=UBUNTU, instance_name="job-1", request_id="r-1", client="ci").id == made.id
    for name in ("qa", None):
        assert other.placed(pool=UBUNTU, instance_name="job-1", request_id="r-1", client=name).id != made.id


def test_a_replica_that_joins_brings_any_number(pair: tuple[Replica, Replica], stopped: StoppedRedis) -> None:
    one, other = pair
    one.rooms = dict.fromkeys("abc", ROOMY)
    one.wire.cut = True
    made = {one.placed(1).id for _ in range(2 * MOST_BROUGHT + 1)}
    one.wire.hold()
    one.wire.cut = False
    stopped.advance(1)
    assert one.ledger.degraded, "it is joining"
    for _ in range(2):
        one.wire.step()
        asking = one.ask(1)
        assert not asking.ended, "it is about to join"
        stopped.advance(0.2)
        assert asking.made is not None, "it was answered alone"
        made.add(asking.made.id)
    one.wire.release()
    assert not one.ledger.degraded
    assert {each.id for each in other.listed()} == made


def test_a_replica_that_may_not_answer_alone_refuses_until_all_have_had_the_time_to_join(
    stopped: StoppedRedis,
) -> None:
    strict = Replica(stopped, refuse=True)
    strict.ledger.start()
    assert not strict.ledger.usable, "others may be about to bring what they know to an empty Redis"
    assert isinstance(strict.ask().error, LedgerUnavailableError)
    stopped.advance(SETTLING)
    assert strict.ledger.usable
    made = strict.placed()
    strict.wire.cut = True
    assert isinstance(strict.ask().error, LedgerUnavailableError)
    with pytest.raises(LedgerUnavailableError):
        at_once(strict.ledger.release(made.id))
    assert strict.claimed() == [2, 0, 0]
    strict.wire.cut = False
    stopped.advance(1)
    assert strict.ledger.usable, "it is the Redis that it was"
    stopped.lose_everything()
    stopped.advance(1)
    stopped.advance(1)
    assert strict.ledger.degraded
    assert not strict.ledger.usable
    stopped.advance(SETTLING)
    assert strict.listed() == [made]
    at_once(strict.ledger.stop())


def test_nobody_is_sure_of_another_run_of_redis_until_all_have_had_the_time_to_join(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    """It may have lost what was written last: it was restarted from its disk, or was a replica until now."""
    one, other = pair
    for replica in pair:
        replica.wire.lose("it is gone")
        replica.wire.server = "another one"
    newcomer = Replica(stopped)
    newcomer.wire.server = "another one"
    newcomer.ledger.start()
    assert newcomer.ledger.degraded, "it has lost nothing itself, but others have"
    stopped.advance(1)
    stopped.advance(1)
    one.wire.lose("it is gone for a moment")
    stopped.advance(0.1)
    assert one.ledger.degraded
    assert other.ledger.degraded
    stopped.advance(SETTLING - 2)
    assert not any(replica.ledger.degraded for replica in (one, other, newcomer))
    one.wire.lose("it is gone")
    stopped.advance(1)
    assert not one.ledger.degraded, "it is the Redis that it was"
    at_once(newcomer.ledger.stop())


def test_all_come_back_in_less_time_than_nobody_is_sure() -> None:
    assert OPENING + MOST_PAUSE < SETTLING


def test_a_request_waits_for_a_redis_that_is_just_being_found_but_not_for_long(stopped: StoppedRedis) -> None:
    replica = Replica(stopped)
    found: Deferred[None] = Deferred()
    replica.wire.finding = found
    replica.ledger.start()
    assert not replica.ledger.settled
    early = replica.ask()
    assert not early.ended
    stopped.advance(0.2)
    assert early.made is not None, "it was answered alone"
    late = replica.ask()
    assert not late.ended
    found.callback(None)
    assert late.made is not None
    assert replica.ledger.settled
    assert {each.id for each in replica.listed()} == {early.made.id, late.made.id}
    at_once(replica.ledger.stop())


def test_what_is_given_back_at_a_replica_that_is_just_starting_is_known_to_it_soon_enough(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    one, _ = pair
    made = one.placed()
    newcomer = Replica(stopped)
    found: Deferred[None] = Deferred()
    newcomer.wire.finding = found
    newcomer.ledger.start()
    outcome: list[bool] = []
    Deferred.fromCoroutine(newcomer.ledger.release(made.id)).addCallback(outcome.append)
    assert not outcome
    found.callback(None)
    assert outcome == [True]
    assert one.listed() == []
    assert not at_once(newcomer.ledger.release("nobody"))
    assert stopped.server.cli("ZCARD", "{test}:released") == 1, "what never was need not be remembered"
    at_once(newcomer.ledger.stop())


def test_nobody_waits_for_a_redis_that_was_lost(pair: tuple[Replica, Replica]) -> None:
    one, _ = pair
    one.wire.lose("it is gone")
    one.wire.finding = Deferred()
    assert one.placed()
    assert one.ledger.degraded


def test_a_release_that_redis_has_lost_is_told_again(pair: tuple[Replica, Replica], stopped: StoppedRedis) -> None:
    one, other = pair
    made = other.placed()
    kept = other.placed()
    stopped.advance(1)
    assert at_once(one.ledger.release(made.id))
    stopped.lose_everything()  # before the other one has heard of it
    stopped.advance(1)
    stopped.advance(1)
    assert [each.id for each in one.listed()] == [each.id for each in other.listed()] == [kept.id]


def test_all_keys_vanish_when_all_replicas_have(pair: tuple[Replica, Replica], redis: RedisServer) -> None:
    one, _ = pair
    one.placed(instance_name="job-1", request_id="r-1")
    made = one.placed()
    one.see("a", {"x/job-1": Instance("job-1", TWO)}, {}, 0.0)
    assert at_once(one.ledger.release(made.id))
    keys = [key for key in redis.cli("KEYS", "*") if key != "time"]
    assert sorted(keys) == sorted(
        f"{{test}}:{name}" for name in ("state", "records", "seen", "hosts", "changed", "ends", "requests", "released")
    )
    left = {key: redis.cli("PTTL", key) for key in keys}
    assert all(LIFE * 1000 < each <= (LIFE + 60) * 1000 for key, each in left.items() if key != "{test}:state")
    assert 0 < left["{test}:state"] <= 3_600_000
