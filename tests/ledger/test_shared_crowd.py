"""A fleet with more reservations than one answer tells of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.logger import LogLevel

from lxdsched.ledger import exchange, records
from lxdsched.ledger.presence import SETTLING
from lxdsched.model import Demand, Instance, Resources
from tests.conftest import Logged
from tests.ledger.bench import LIFE, at_once
from tests.ledger.replica import Replica
from tests.ledger.stopped import StoppedRedis
from tests.redis.server import RedisServer
from tests.support import GIB

pytestmark = pytest.mark.real_redis

HOSTS = 60
EACH = 100
KEYS = dict(zip(records.KEYS, records.keys("test"), strict=True))
AT_ONCE = 2000
"""Reservations of which one answer tells, but for the last host's."""


def fill(redis: RedisServer, candidates: int = 1) -> None:
    """Claim as others would have: EACH reservations on each host, chosen from so many candidates."""
    now = int(redis.cli("GET", "time"))
    asked = Demand(Resources(1000, GIB))
    for number in range(HOSTS):
        host = f"h{number:02}"
        ids = [f"{host}-{place}" for place in range(EACH)]
        rest = records.rest(asked, [host] * candidates, "x").decode()
        head = f'{{"expires":{now + round(LIFE * 1000)},"cpu":1000,"memory":{GIB},"promised":false,"created":{now}'
        redis.cli("HSET", KEYS["records"], *[part for made in ids for part in (made, f'{head},"host":"{host}",{rest}')])
        redis.cli("HSET", KEYS["hosts"], host, " ".join(ids))
        redis.cli("ZADD", KEYS["changed"], redis.cli("HINCRBY", KEYS["state"], "version", 1), host)


@pytest.fixture
def late(pair: tuple[Replica, Replica], stopped: StoppedRedis) -> Iterator[Replica]:
    """A third replica, whose calls are held."""
    made = Replica(stopped)
    made.wire.hold()
    yield made
    made.wire.release()
    at_once(made.ledger.stop())


def counted(replica: Replica) -> int:
    """Say how many cores a replica takes for claimed on these hosts."""
    return sum(replica.ledger.claims(f"h{number:02}").resources.cpu // 1000 for number in range(HOSTS))


def test_a_replica_that_joins_hears_of_all_in_several_answers_and_shares_nothing_before(
    late: Replica, redis: RedisServer
) -> None:
    fill(redis)
    late.ledger.start()
    heard = []
    while late.wire.held:
        assert late.ledger.degraded
        late.wire.step()
        heard.append(counted(late))
    assert heard == [AT_ONCE, 2 * AT_ONCE, HOSTS * EACH]
    assert not late.ledger.degraded


def test_what_happens_while_a_replica_hears_of_all_is_neither_lost_nor_taken_for_living(
    pair: tuple[Replica, Replica], late: Replica, stopped: StoppedRedis, redis: RedisServer
) -> None:
    one, _ = pair
    one.rooms = late.rooms = {"a": one.rooms["a"]}
    early = one.placed()
    fill(redis)
    late.ledger.start()
    late.wire.step()
    assert at_once(one.ledger.release(early.id))
    others = one.placed()
    late.wire.step()
    late.wire.step()
    assert len(late.wire.held) == 1, "the call that tells of the last host, `a`, brings nothing"
    asking = late.ask()
    stopped.advance(0.2)
    alone = asking.made
    assert alone is not None
    late.wire.release()
    assert not late.ledger.degraded
    found = {each.id for each in late.listed() if each.host in "abc"}
    assert found == {alone.id, others.id}
    assert {each.id for each in one.listed() if each.host in "abc"} == found
    assert counted(late) == counted(one) == HOSTS * EACH


def test_a_replica_that_comes_back_drops_what_was_given_back_on_hosts_of_which_nobody_tells(
    pair: tuple[Replica, Replica], stopped: StoppedRedis, redis: RedisServer
) -> None:
    one, other = pair
    fill(redis)
    gone = one.placed()
    assert counted(other) == 0
    assert gone.id in {each.id for each in other.listed()}
    other.wire.cut = True
    other.wire.lose("it is away")
    assert at_once(one.ledger.release(gone.id))
    other.wire.cut = False
    stopped.advance(1)
    assert not other.ledger.degraded
    assert gone.id not in {each.id for each in other.listed()}
    assert counted(other) == HOSTS * EACH


def test_a_redis_that_loses_all_while_it_is_being_heard_is_joined_anew(
    late: Replica, stopped: StoppedRedis, redis: RedisServer
) -> None:
    fill(redis)
    late.ledger.start()
    late.wire.step()
    stopped.lose_everything()
    late.wire.step()
    assert late.ledger.degraded
    late.wire.release()
    stopped.advance(1)
    stopped.advance(SETTLING)
    assert not late.ledger.degraded
    assert counted(late) == redis.cli("HLEN", KEYS["records"]) == AT_ONCE, "what it had heard of is not lost"


def test_who_claims_hears_of_the_claim_however_much_else_there_is_to_tell(
    pair: tuple[Replica, Replica], redis: RedisServer
) -> None:
    one, _ = pair
    fill(redis)
    made = one.placed()
    assert (made.host, one.asked) == ("a", ["a"])
    assert 0 < counted(one) < HOSTS * EACH
    assert len(one.listed()) == HOSTS * EACH + 1, "the rest is told to whoever asks"


def test_who_ranked_a_host_by_what_is_past_hears_of_it_however_much_else_there_is_to_tell(
    pair: tuple[Replica, Replica], redis: RedisServer
) -> None:
    one, other = pair
    one.wire.hold()
    asking = one.ask()
    fill(redis)
    assert other.placed().host == "a"
    one.wire.release()
    assert asking.made is not None
    assert (asking.made.host, one.asked) == ("b", ["a", "b"])


def test_records_that_are_long_are_told_in_smaller_numbers(late: Replica, redis: RedisServer) -> None:
    fill(redis, candidates=2000)
    late.ledger.start()
    late.wire.step()
    assert 0 < counted(late) < AT_ONCE / 4
    late.wire.release()
    assert counted(late) == HOSTS * EACH


def test_who_matched_instances_by_what_is_past_hears_of_the_host_however_much_else_there_is_to_tell(
    pair: tuple[Replica, Replica], redis: RedisServer
) -> None:
    one, other = pair
    fill(redis)
    made = other.placed(instance_name="runner")
    one.wire.hold()
    one.see("a", {"x/runner": Instance("runner", Resources(2000, GIB))}, {}, 1001.0)
    one.wire.step()
    one.wire.step()
    assert not one.wire.held, "once it had heard, it was right"
    one.wire.release()
    assert one.claimed() == [0, 0, 0]
    assert len(one.listed()) == HOSTS * EACH + 1
    assert {each.instance for each in other.listed() if each.id == made.id} == {"x/runner"}


def test_a_redis_that_never_comes_to_an_end_is_not_listened_to_for_ever(
    late: Replica, redis: RedisServer, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MOST_PIECES", 2)
    fill(redis)
    late.ledger.start()
    late.wire.release()
    assert late.ledger.degraded
    (said,) = logged.messages(LogLevel.warn)
    assert said.endswith("it does not come to an end with what it tells")
