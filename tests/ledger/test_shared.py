"""What several replicas claim at the same time: calls under way, and answers for those who have gone."""

from __future__ import annotations

import json

import pytest
from twisted.internet.defer import CancelledError

from tests.ledger.bench import at_once
from tests.ledger.replica import Replica
from tests.ledger.stopped import StoppedRedis
from tests.redis.server import RedisServer

pytestmark = pytest.mark.real_redis


def test_requests_that_are_under_way_choose_beside_each_other(pair: tuple[Replica, Replica]) -> None:
    one, _ = pair
    one.wire.hold()
    asking = [one.ask() for _ in range(6)]
    assert not any(each.ended for each in asking)
    assert one.claimed() == [4, 4, 4], "what they will claim is claimed already"
    one.wire.release()
    assert sorted(each.made.host for each in asking if each.made) == ["a", "a", "b", "b", "c", "c"]
    assert len(one.asked) == 6, "none had to be ranked again"
    assert one.claimed() == [4, 4, 4]


def test_what_another_replica_claimed_meanwhile_is_heard_of_and_the_best_host_chosen(
    pair: tuple[Replica, Replica],
) -> None:
    one, other = pair
    one.wire.hold()
    asking = one.ask()
    assert other.placed().host == "a"
    one.wire.release()
    assert asking.made is not None
    assert (asking.made.host, one.asked) == ("b", ["a", "b"])
    assert one.claimed() == [2, 2, 0]


def test_where_there_is_time_for_one_more_round_alone_any_host_with_room_will_do(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    one, other = pair
    one.wire.hold()
    asking = one.ask()
    for taken in "ab":
        assert other.placed().host == taken
        stopped.advance(0.12)
        assert not asking.ended
        one.wire.step()
    assert asking.made is not None
    assert asking.made.host == "b", "there is room, though c has more"


def test_before_a_request_is_refused_the_latest_is_heard_of(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    one, other = pair
    made = [one.placed(4) for _ in range(3)]
    assert other.ask().made is None
    assert at_once(one.ledger.release(made[1].id))
    assert other.placed().host == made[1].host


def test_a_request_that_is_put_to_two_replicas_at_once_claims_once(pair: tuple[Replica, Replica]) -> None:
    one, other = pair
    one.wire.hold()
    asking = one.ask(request_id="r-1")
    made = other.placed(request_id="r-1")
    one.wire.release()
    assert asking.made is not None
    assert asking.made.id == made.id
    assert [each.id for each in one.listed()] == [made.id]


def test_the_same_request_id_of_two_clients_is_two_requests_at_all_replicas(pair: tuple[Replica, Replica]) -> None:
    one, other = pair
    one.wire.hold()
    asking = [one.ask(request_id="r-1", client=name) for name in ("ci", "qa")]
    made = {name: other.placed(request_id="r-1", client=name) for name in ("qa", "ci")}
    one.wire.release()
    assert [each.made.id for each in asking if each.made] == [made["ci"].id, made["qa"].id]
    for each in pair:
        assert {(found.id, found.client) for found in each.listed()} == {(made[name].id, name) for name in made}
        assert {found.request_id for found in each.listed()} == {"r-1"}
    assert at_once(other.ledger.release(made["ci"].id))
    assert other.placed(request_id="r-1", client="qa").id == made["qa"].id
    assert other.placed(request_id="r-1", client="ci").id != made["ci"].id


def test_what_replicas_of_earlier_versions_know_of_a_request_is_in_its_place(
    pair: tuple[Replica, Replica], redis: RedisServer
) -> None:
    """They take `request_id` for one that no client has sent, and drop it from `requests` with the record."""
    one, _ = pair
    made = {name: one.placed(1, request_id="r-1", client=name) for name in ("ci", None)}
    found = {name: json.loads(redis.cli("HGET", "{test}:records", each.id))["demand"] for name, each in made.items()}
    assert found == {
        "ci": {"request_id": '["ci","r-1"]', "client": "ci"},
        None: {"request_id": "r-1"},
    }
    for name, each in made.items():
        assert redis.cli("HGET", "{test}:requests", found[name]["request_id"]) == each.id
        assert at_once(one.ledger.release(each.id))
    assert redis.cli("HLEN", "{test}:requests") == 0


@pytest.mark.parametrize("request_id", ["r-1", "[r-1", '[null,"r-1"]'])
def test_what_was_claimed_by_a_replica_of_an_earlier_version_is_no_clients(
    pair: tuple[Replica, Replica], stopped: StoppedRedis, redis: RedisServer, request_id: str
) -> None:
    one, _ = pair
    old = one.placed(1, request_id="to be written as it came")
    record = redis.cli("HGET", "{test}:records", old.id).replace('"to be written as it came"', json.dumps(request_id))
    redis.cli("HSET", "{test}:records", old.id, record)
    redis.cli("HDEL", "{test}:requests", "to be written as it came")
    redis.cli("HSET", "{test}:requests", request_id, old.id)
    new = Replica(stopped)
    new.ledger.start()
    assert [(each.client, each.request_id) for each in new.listed()] == [(None, request_id)]
    assert new.placed(1, request_id=request_id).id == old.id
    assert new.placed(1, request_id=request_id, client="ci").id != old.id
    assert at_once(new.ledger.release(old.id))
    assert redis.cli("HGET", "{test}:requests", request_id) is None
    assert new.placed(1, request_id=request_id).id != old.id
    at_once(new.ledger.stop())


def test_what_was_claimed_for_somebody_who_has_gone_is_given_back(pair: tuple[Replica, Replica]) -> None:
    one, other = pair
    one.wire.hold()
    asking = one.ask()
    asking.cancel()
    assert isinstance(asking.error, CancelledError)
    one.wire.release()
    assert other.listed() == []
    assert one.claimed() == [0, 0, 0]


def test_what_was_claimed_under_a_key_stays_for_whoever_repeats_the_request(pair: tuple[Replica, Replica]) -> None:
    one, other = pair
    one.wire.hold()
    asking = one.ask(request_id="r-1")
    one.wire.step()
    late = one.ask(request_id="r-2")
    made = other.placed(request_id="r-1")
    asking.cancel()
    late.cancel()
    one.wire.release()
    assert {each.request_id for each in other.listed()} == {"r-1", "r-2"}
    assert other.placed(request_id="r-1").id == made.id
