"""What several replicas claim at the same time: calls under way, and answers for those who have gone."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from tests.ledger.bench import at_once
from tests.ledger.replica import Replica
from tests.ledger.stopped import StoppedRedis

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
