"""Which instance takes over what, where several replicas look, and not at the same time."""

from __future__ import annotations

import pytest

from lxdsched.model import Instance, Phase, Resources
from tests.ledger.bench import ROOMY
from tests.ledger.replica import Replica
from tests.ledger.stopped import StoppedRedis
from tests.support import GIB

pytestmark = pytest.mark.real_redis

TWO = Resources(2000, 2 * GIB)


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
