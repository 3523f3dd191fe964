"""What several replicas do at the same time: calls under way, lost answers, older views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from lxdsched.ledger.book import Candidate, LedgerUnavailableError
from lxdsched.ledger.exchange import MOST_BROUGHT
from lxdsched.ledger.presence import MOST_PAUSE, OPENING, SETTLING
from lxdsched.model import Instance, Kind, Phase, Reservation, Resources
from tests.ledger.bench import LIFE, ROOMY, at_once
from tests.ledger.stopped import StoppedRedis
from tests.redis.server import RedisServer
from tests.support import GIB, demand

pytestmark = pytest.mark.real_redis

TWO = Resources(2000, 2 * GIB)
UBUNTU = Kind("small", "ubuntu")


class Asking:
    """A request that may still wait."""

    def __init__(self, waiting: Deferred[Reservation | None]) -> None:
        self.made: Reservation | None = None
        self.error: BaseException | None = None
        self.ended = False
        self._waiting = waiting.addBoth(self._end)

    def _end(self, result: Reservation | Failure | None) -> None:
        self.ended = True
        if isinstance(result, Failure):
            self.error = result.value
        else:
            self.made = result

    def cancel(self) -> None:
        self._waiting.cancel()


class Replica:
    """A ledger with its wire, asked for places on hosts of four cores each."""

    def __init__(self, redis: StoppedRedis, *, refuse: bool = False) -> None:
        self.ledger, self.wire = redis.ledger(LIFE, refuse=refuse)
        self.rooms = {name: Resources(4000, 64 * GIB) for name in "abc"}
        self.asked: list[str] = []

    def ask(self, cores: int = 2, **more: object) -> Asking:
        asked = demand(cores, GIB, **more)

        def rank() -> list[Candidate]:
            """Rank as `least-allocated` does."""
            free = {name: room - self.ledger.claims(name).resources for name, room in self.rooms.items()}
            fit = [name for name in free if free[name].covers(asked.resources)]
            best = sorted(fit, key=lambda name: (-free[name].cpu, name))
            self.asked += best[:1]
            return [Candidate(name, self.rooms[name], 1) for name in best]

        return Asking(Deferred.fromCoroutine(self.ledger.reserve(asked, rank)))

    def placed(self, cores: int = 2, **more: object) -> Reservation:
        asking = self.ask(cores, **more)
        assert asking.made is not None
        return asking.made

    def listed(self) -> list[Reservation]:
        return list(at_once(self.ledger.reservations()))

    def claimed(self) -> list[int]:
        return [self.ledger.claims(name).resources.cpu // 1000 for name in self.rooms]

    def see(self, host: str, now: dict[str, Instance], before: dict[str, Instance] | None, asked_at: float) -> None:
        self.ledger.sight(host, now, before, asked_at)


@pytest.fixture
def stopped(redis: RedisServer) -> StoppedRedis:
    return StoppedRedis(redis)


@pytest.fixture
def pair(stopped: StoppedRedis) -> Iterator[tuple[Replica, Replica]]:
    """Two replicas that share everything."""
    replicas = Replica(stopped), Replica(stopped)
    for replica in replicas:
        replica.ledger.start()
    stopped.advance(SETTLING)
    assert not any(replica.ledger.degraded for replica in replicas)
    yield replicas
    for replica in replicas:
        replica.wire.release()
        at_once(replica.ledger.stop())
    assert not stopped.clock.getDelayedCalls()


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
    made = one.placed(pool=UBUNTU, instance_name="job-1", request_id="r-1")
    assert one.ledger.degraded
    second = other.placed(4)
    one.wire.cut = False
    stopped.advance(1)
    assert {each.id for each in one.listed()} == {each.id for each in other.listed()} >= {first.id, made.id, second.id}
    (brought,) = [each for each in other.listed() if each.id == made.id]
    assert replace(brought, created_at=made.created_at, expires_at=made.expires_at) == made
    assert brought.expires_at == pytest.approx(made.expires_at, abs=0.01)
    assert one.claimed() == other.claimed()
    assert other.placed(pool=UBUNTU, instance_name="job-1", request_id="r-1").id == made.id


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


def test_two_replicas_that_see_an_instance_at_once_have_it_take_over_one_reservation(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    one, other = pair
    one.placed(2)
    stopped.advance(1)
    one.rooms = other.rooms = {"a": ROOMY}
    other.placed(2)
    stopped.advance(1)
    for replica in pair:
        replica.wire.hold()
        replica.see("a", {"x/i": Instance("i", Resources(2000, GIB))}, {}, stopped.clock.seconds())
        assert replica.claimed() == [2], "it is counted once, at once"
    for replica in pair:
        replica.wire.release()
    for replica in pair:
        assert [each.phase for each in replica.listed()] == [Phase.SEEN, Phase.PENDING]
        assert replica.claimed() == [2]


@pytest.mark.parametrize("first", [0, 1])
def test_two_replicas_that_each_on_its_own_gave_one_instance_to_a_reservation_agree_on_one_of_them(
    pair: tuple[Replica, Replica], stopped: StoppedRedis, first: int
) -> None:
    for replica in pair:
        replica.wire.cut = True
        assert replica.placed().host == "a"
        replica.see("a", {"x/i": Instance("i", Resources(2000, GIB))}, {}, stopped.clock.seconds())
        assert replica.claimed() == [0, 0, 0]
        stopped.advance(0.1)
    for replica in (pair[first], pair[1 - first]):
        replica.wire.cut = False
        stopped.advance(1)
        stopped.advance(1)
    for replica in pair:
        assert [each.phase for each in replica.listed()] == [Phase.SEEN, Phase.PENDING], "the older one has it"
        assert replica.claimed() == [2, 0, 0]


def test_what_was_seen_while_a_replica_was_joining_is_told_afterwards(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    one, other = pair
    made = one.placed()
    one.wire.lose("it is gone")
    one.wire.hold()
    stopped.advance(0.2)
    assert one.wire.held, "it is joining"
    one.see("a", {"x/i": Instance("i", made.resources)}, {}, stopped.clock.seconds())
    one.wire.release()
    assert [each.instance for each in one.listed()] == [each.instance for each in other.listed()] == ["x/i"]
    assert one.claimed() == [0, 0, 0]


def test_an_instance_takes_over_what_was_reserved_elsewhere_just_before(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    one, other = pair
    made = one.placed(instance_name="job-1")
    assert other.claimed() == [0, 0, 0], "it has not heard of it yet"
    stopped.advance(0.1)
    other.see(made.host, {"x/job-1": Instance("job-1", TWO)}, {}, stopped.clock.seconds())
    assert [each.instance for each in one.listed()] == ["x/job-1"]
    assert other.claimed() == [0, 0, 0]


def test_an_instance_that_was_there_before_the_reservation_does_not_take_it_over(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    one, other = pair
    other.wire.hold()
    other.see("a", {"x/i": Instance("i", Resources(2000, GIB))}, {}, stopped.clock.seconds())
    stopped.advance(0.1)
    one.placed()
    other.wire.release()
    stopped.advance(1)
    assert other.claimed() == [2, 0, 0]
    assert [each.phase for each in one.listed()] == [Phase.PENDING]


def test_a_replica_with_an_older_view_counts_a_reservation_until_it_sees_the_instance_itself(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    one, other = pair
    one.rooms = other.rooms = {"a": Resources(4000, 64 * GIB)}
    made = one.placed(instance_name="job-1")
    one.see("a", {"x/job-1": Instance("job-1", made.resources)}, {}, stopped.clock.seconds())
    one.rooms = {"a": Resources(2000, 64 * GIB)}  # beside the instance
    assert one.claimed() == [0]
    assert other.ask(4).made is None
    assert other.claimed() == [2], "its own view does not show the instance"
    assert other.placed(2)
    assert one.ask(2).made is None
    other.see("a", {"x/job-1": Instance("job-1", made.resources)}, {}, stopped.clock.seconds())
    assert other.claimed() == [2], "what it has claimed itself"


@pytest.mark.parametrize(("shown", "counted"), [(None, 2), (1000, 2), (2000, 0), (4000, 0)])
def test_an_earlier_instance_of_the_name_hides_a_reservation_only_where_it_takes_as_much(
    pair: tuple[Replica, Replica], stopped: StoppedRedis, shown: int | None, counted: int
) -> None:
    one, other = pair
    there = {} if shown is None else {"x/job-1": Instance("job-1", Resources(shown, GIB))}
    other.see("a", there, None, stopped.clock.seconds())
    stopped.advance(1)
    made = one.placed(instance_name="job-1")
    stopped.advance(1)
    one.see("a", {"x/job-1": Instance("job-1", made.resources)}, {}, stopped.clock.seconds())
    stopped.advance(1)
    assert other.claimed()[0] == counted


def test_an_instance_that_has_come_and_gone_unseen_is_forgotten_by_the_next_listing(
    pair: tuple[Replica, Replica], stopped: StoppedRedis
) -> None:
    one, other = pair
    asked_early = stopped.clock.seconds()
    made = one.placed(instance_name="job-1")
    one.see("a", {"x/job-1": Instance("job-1", made.resources)}, {}, stopped.clock.seconds())
    stopped.advance(1)
    other.see("a", {}, {}, asked_early)
    assert other.claimed() == [2, 0, 0], "what was asked for before may have been told before"
    stopped.advance(0.1)
    other.see("a", {}, {}, stopped.clock.seconds())
    assert other.claimed() == [0, 0, 0]


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
