"""How an instance that a host lists takes a reservation over."""

from __future__ import annotations

import pytest

from lxdsched.ledger.book import Candidate
from lxdsched.model import NO_CLAIMS, Instance, Kind, Resources
from tests.ledger.bench import LIFE, ROOMY, Bench, Caller
from tests.support import GIB, demand

UBUNTU = Kind("small", "ubuntu")
TWO = Resources(2000, 2 * GIB)
ONE = Resources(1000, GIB)


def instance(name: str, size: Resources = TWO, runner: str | None = None, kind: Kind | None = None) -> Instance:
    return Instance(name, size, runner=runner, kind=kind)


def test_an_instance_takes_over_the_reservation_that_tells_its_name_whatever_its_size(caller: Caller) -> None:
    caller.claim(demand(2, 2 * GIB, instance_name="other"))
    made = caller.claim(demand(2, 2 * GIB, instance_name="job-1"))
    caller.list(label=instance("job-1", ONE))
    assert caller.takers()[made.id] == "label"
    assert caller.claimed() == TWO


def test_the_name_of_its_runner_is_as_good(caller: Caller) -> None:
    made = caller.claim(demand(2, 2 * GIB, instance_name="runner-1"))
    caller.list(label=instance("lxd-4711", runner="runner-1"))
    assert caller.takers()[made.id] == "label"


def test_a_runner_may_come_to_an_instance_that_was_there_before(caller: Caller) -> None:
    caller.list(pooled=instance("pooled", kind=UBUNTU))
    made = caller.claim(demand(2, 2 * GIB, instance_name="runner-1"))
    caller.list(pooled=instance("pooled", kind=UBUNTU))
    assert caller.takers()[made.id] is None
    caller.list(pooled=instance("pooled", kind=UBUNTU, runner="runner-1"))
    assert caller.takers()[made.id] == "pooled"


def test_a_named_reservation_waits_for_its_name(caller: Caller) -> None:
    made = caller.claim(demand(2, 2 * GIB, instance_name="job-1"))
    caller.list(twin=instance("twin"))
    assert caller.takers()[made.id] is None
    assert caller.claimed() == TWO


def test_a_nameless_reservation_is_taken_over_by_an_instance_of_its_size(caller: Caller) -> None:
    one, two = caller.claim(demand(1, GIB)), caller.claim(demand(2, 2 * GIB))
    caller.list(label=instance("any"))
    assert caller.takers() == {one.id: None, two.id: "label"}


def test_the_oldest_of_several_that_may_be_meant_is_taken_over(bench: Bench, caller: Caller) -> None:
    first = caller.claim(demand(2, 2 * GIB))
    bench.advance(1)
    second = caller.claim(demand(2, 2 * GIB))
    caller.list(i1=instance("i1"))
    assert caller.takers() == {first.id: "i1", second.id: None}
    caller.list(i1=instance("i1"), i2=instance("i2"))
    assert caller.takers() == {first.id: "i1", second.id: "i2"}


@pytest.mark.parametrize(
    ("memory", "taken"),
    [
        (2_000_000_000, True),  # asked as 2GiB by shoes-lxd-multi
        (2 * GIB - 2 * GIB // 8, True),
        (2 * GIB - 2 * GIB // 8 - 1, False),
        (2 * GIB * 8 // 7, True),
        (2 * GIB * 8 // 7 + 1, False),
        (GIB, False),
    ],
)
def test_memory_may_differ_by_an_eighth(caller: Caller, memory: int, taken: bool) -> None:
    made = caller.claim(demand(2, memory))
    caller.list(label=instance("any"))
    assert (caller.takers()[made.id] is not None) is taken


def test_cpu_may_not_differ(caller: Caller) -> None:
    made = caller.claim(demand(3, 2 * GIB))
    caller.list(label=instance("any"))
    assert caller.takers()[made.id] is None


def test_an_equal_size_is_meant_rather_than_a_similar_one(bench: Bench, caller: Caller) -> None:
    similar = caller.claim(demand(2, 2_000_000_000))
    bench.advance(1)
    equal = caller.claim(demand(2, 2 * GIB))
    caller.list(label=instance("any"))
    assert caller.takers() == {similar.id: None, equal.id: "label"}


def test_a_pool_instance_takes_over_what_promised_its_kind_whatever_was_asked_for_first(
    bench: Bench, caller: Caller
) -> None:
    plain = caller.claim(demand(2, 2 * GIB))
    bench.advance(1)
    promised = caller.claim(demand(2, 2 * GIB, pool=UBUNTU), Candidate("a", ROOMY, 1))
    caller.list(label=instance("pooled", kind=UBUNTU, runner="any"))
    assert caller.takers() == {plain.id: None, promised.id: "label"}


def test_a_plain_instance_leaves_the_promise_of_a_pool_instance_alone_while_it_may_mean_another(
    bench: Bench, caller: Caller
) -> None:
    promised = caller.claim(demand(2, 2 * GIB, pool=UBUNTU), Candidate("a", ROOMY, 1))
    bench.advance(1)
    plain = caller.claim(demand(2, 2 * GIB))
    caller.list(fresh=instance("fresh"))
    assert caller.takers() == {promised.id: None, plain.id: "fresh"}
    caller.list(fresh=instance("fresh"), more=instance("more"))
    assert caller.takers() == {promised.id: "more", plain.id: "fresh"}


def test_one_instance_takes_over_one_reservation(caller: Caller) -> None:
    for _ in range(3):
        caller.claim(demand(2, 2 * GIB))
    caller.list(label=instance("any"))
    caller.list(label=instance("any"))
    caller.list(label=instance("any", runner="a-runner"))
    assert caller.claimed() == TWO + TWO


def test_several_that_are_seen_at_once_take_over_one_each(caller: Caller) -> None:
    for name in (None, None, "job-1", "job-1"):
        caller.claim(demand(2, 2 * GIB, instance_name=name))
    now = {"x/a": instance("a"), "x/job-1": instance("job-1"), "x/b": instance("b"), "y/job-1": instance("job-1")}
    caller.look("a", now, {})
    assert list(caller.takers().values()) == ["x/a", "x/b", "x/job-1", "y/job-1"]


def test_one_that_has_taken_over_takes_over_no_other_for_a_name_that_it_comes_to(caller: Caller) -> None:
    nameless = caller.claim(demand(2, 2 * GIB))
    named = caller.claim(demand(2, 2 * GIB, instance_name="runner-1"))
    caller.list(label=instance("any"))
    caller.list(label=instance("any", runner="runner-1"))
    assert caller.takers() == {nameless.id: "label", named.id: None}


def test_one_that_counted_before_is_known_by_its_new_runner_alone(caller: Caller) -> None:
    caller.list(label=instance("any"))
    caller.claim(demand(2, 2 * GIB))
    caller.list(label=instance("any", runner="somebody"))
    assert caller.claimed() == TWO


def test_an_instance_that_counted_before_takes_over_nothing(caller: Caller) -> None:
    caller.list(label=instance("any"))
    caller.claim(demand(2, 2 * GIB))
    caller.list(label=instance("any"))
    caller.list(label=instance("any", ONE))
    assert caller.claimed() == TWO


def test_the_first_look_at_a_host_tells_nothing_but_names(bench: Bench, caller: Caller) -> None:
    caller.claim(demand(2, 2 * GIB))
    caller.claim(demand(2, 2 * GIB, instance_name="job-1"))
    caller.look("a", {"x/any": instance("any"), "x/job-1": instance("job-1")}, None)
    assert sorted(map(str, caller.takers().values())) == ["None", "x/job-1"]


def test_an_instance_of_another_host_takes_over_nothing(caller: Caller) -> None:
    caller.claim(demand(2, 2 * GIB), "a")
    caller.claim(demand(2, 2 * GIB, instance_name="job-1"), "a")
    caller.list("b", any=instance("any"), job=instance("job-1"))
    assert caller.claimed("a") == TWO + TWO


def test_an_instance_that_is_frozen_and_thawed_again_takes_over_no_second_one(bench: Bench, caller: Caller) -> None:
    caller.claim(demand(2, 2 * GIB))
    caller.list(label=instance("any"))
    caller.claim(demand(2, 2 * GIB))
    caller.list()  # what is frozen does not count
    caller.list(label=instance("any"))
    assert caller.claimed() == TWO, "the second one's instance is still to come"


def test_another_instance_of_a_name_takes_over_another_reservation(caller: Caller) -> None:
    caller.claim(demand(2, 2 * GIB, instance_name="job-1"))
    caller.list(label=instance("job-1"))
    caller.list()
    caller.claim(demand(2, 2 * GIB, instance_name="job-1"))
    caller.list(label=instance("job-1"))
    assert caller.bench.ledger.claims("a") == NO_CLAIMS
    assert list(caller.takers().values()) == ["label", "label"]


def test_the_end_of_an_earlier_one_of_its_name_does_not_make_an_instance_free_again(
    bench: Bench, caller: Caller
) -> None:
    first = caller.claim(demand(2, 2 * GIB, instance_name="job-1"))
    caller.list(label=instance("job-1"))
    caller.list()
    bench.advance(1)
    caller.claim(demand(2, 2 * GIB, instance_name="job-1"))
    caller.list(label=instance("job-1"))
    assert caller.release(first)
    caller.claim(demand(2, 2 * GIB))
    caller.list()
    caller.list(label=instance("job-1"))
    assert caller.claimed() == TWO


def test_what_becomes_of_its_instance_does_not_matter_to_a_reservation_that_was_taken_over(
    bench: Bench, caller: Caller
) -> None:
    made = caller.claim(demand(2, 2 * GIB))
    caller.list(label=instance("any"))
    caller.list(label=instance("any", ONE))
    caller.list()
    assert caller.takers() == {made.id: "label"}
    bench.advance(LIFE)
    assert caller.takers() == {}


def test_an_instance_that_comes_after_the_end_of_its_reservation_takes_over_nothing(
    bench: Bench, caller: Caller
) -> None:
    caller.claim(demand(2, 2 * GIB))
    bench.advance(LIFE)
    caller.list(label=instance("any"))
    assert caller.takers() == {}
    assert bench.idle()


def test_a_pool_instance_in_the_making_takes_over_nothing(caller: Caller) -> None:
    caller.claim(demand(2, 2 * GIB))
    caller.claim(demand(2, 2 * GIB, pool=UBUNTU), Candidate("a", ROOMY, 1))
    caller.list(making=instance("making", kind=UBUNTU))
    assert caller.claimed() == TWO + TWO, "it counts until it is frozen, and nobody was told to take it"


def test_a_pool_instance_takes_a_reservation_over_when_it_comes_to_a_runner(caller: Caller) -> None:
    made = caller.claim(demand(2, 2 * GIB, pool=UBUNTU), Candidate("a", ROOMY, 1))
    caller.list(pooled=instance("pooled", kind=UBUNTU))
    caller.list(pooled=instance("pooled", kind=UBUNTU, runner="any"))
    assert caller.takers() == {made.id: "pooled"}
    caller.claim(demand(2, 2 * GIB))
    caller.list(pooled=instance("pooled", kind=UBUNTU, runner="another"))
    assert caller.claimed() == TWO, "it had one before"
