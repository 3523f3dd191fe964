"""Which of several reservations several instances take over, seen at once."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import assume, given
from hypothesis import strategies as st

from lxdsched.ledger.sight import matches
from lxdsched.model import Instance, Kind, Reservation, Resources

GIB = 1024**3
UBUNTU = Kind("small", "ubuntu")
DEBIAN = Kind("small", "debian")


def reservation(
    number: int, cores: int = 2, memory: int = 2 * GIB, name: str | None = None, pool: Kind | None = None
) -> Reservation:
    """Make the reservation `r<number>`; the larger the number, the newer."""
    return Reservation(
        id=f"r{number}",
        host="a",
        resources=Resources(cores * 1000, memory),
        created_at=number,
        expires_at=number + 100,
        instance_name=name,
        pool=pool,
    )


def instance(
    name: str = "any",
    cores: int = 2,
    memory: int = 2 * GIB,
    runner: str | None = None,
    kind: Kind | None = None,
) -> Instance:
    return Instance(name, Resources(cores * 1000, memory), runner=runner, kind=kind)


def taken(*pending: Reservation, **new: Instance) -> Mapping[str, str]:
    """Say who takes what over when these instances are all new."""
    return matches(pending, new, {}, ())


def test_where_nothing_is_pending_or_nothing_new_nothing_is_taken_over() -> None:
    assert taken(a=instance()) == {}
    assert taken(reservation(1)) == {}
    assert matches([reservation(1)], {"a": instance()}, {"a": instance()}, ()) == {}


def test_each_of_several_alike_gets_one_of_its_own() -> None:
    pairs = taken(reservation(1), reservation(2), reservation(3), a=instance(), b=instance())
    assert pairs == {"r1": "a", "r2": "b"}


def test_there_may_be_more_instances_than_reservations() -> None:
    assert taken(reservation(1), a=instance(), b=instance()) == {"r1": "a"}


def test_two_reservations_of_one_name_are_not_both_taken_over_by_one_instance() -> None:
    assert taken(reservation(1, name="job"), reservation(2, name="job"), a=instance("job")) == {"r1": "a"}


def test_an_instance_whose_name_is_meant_takes_over_no_nameless_one() -> None:
    assert taken(reservation(1), reservation(2, name="job"), a=instance("job")) == {"r2": "a"}
    assert taken(reservation(1), reservation(2, name="job"), a=instance(runner="job")) == {"r2": "a"}


def test_an_instance_without_a_runner_is_not_meant_by_a_reservation_without_a_name() -> None:
    assert taken(reservation(1, cores=4), a=instance(runner=None)) == {}


def test_a_name_counts_even_at_the_first_look_and_looks_do_not() -> None:
    pending = [reservation(1), reservation(2, name="job")]
    assert matches(pending, {"a": instance(), "b": instance("job")}, None, ()) == {"r2": "b"}


def test_one_that_was_only_frozen_for_a_while_may_be_meant_by_its_name_alone() -> None:
    pending = [reservation(1), reservation(2, name="job")]
    assert matches(pending, {"a": instance()}, {}, {"a"}) == {}
    assert matches(pending, {"a": instance("job")}, {}, {"a"}) == {"r2": "a"}


def test_one_that_has_taken_over_and_still_counts_takes_over_no_second_one_for_another_runner() -> None:
    before, now = {"a": instance()}, {"a": instance(runner="job")}
    assert matches([reservation(1, name="job")], now, before, {"a"}) == {}
    assert matches([reservation(1, name="job")], now, before, ()) == {"r1": "a"}


def test_one_of_the_pool_without_a_runner_is_meant_by_nobody() -> None:
    assert taken(reservation(1), reservation(2, pool=UBUNTU), a=instance(kind=UBUNTU)) == {}


def test_one_of_the_pool_that_came_to_a_runner_is_new_and_one_that_only_changed_it_is_not() -> None:
    now, pending = {"a": instance(runner="job", kind=UBUNTU)}, [reservation(1)]
    assert matches(pending, now, {"a": instance(kind=UBUNTU)}, ()) == {"r1": "a"}
    assert matches(pending, now, {"a": instance(kind=UBUNTU)}, {"a"}) == {}
    assert matches(pending, now, {"a": instance(runner="other", kind=UBUNTU)}, ()) == {}
    assert matches(pending, now, {"a": instance()}, ()) == {}


def test_of_a_promised_kind_the_size_tells_which() -> None:
    pending = [reservation(1, cores=4, pool=UBUNTU), reservation(2, memory=2_000_000_000, pool=UBUNTU)]
    assert taken(*pending, a=instance(runner="x", kind=UBUNTU)) == {"r2": "a"}
    assert taken(*pending, a=instance(cores=8, runner="x", kind=UBUNTU)) == {"r1": "a"}


def test_a_promised_kind_comes_before_any_size() -> None:
    pending = [reservation(1), reservation(2, cores=4, pool=DEBIAN), reservation(3, cores=4, pool=UBUNTU)]
    assert taken(*pending, a=instance(runner="x", kind=UBUNTU)) == {"r3": "a"}


def test_a_pool_instance_of_another_kind_is_known_by_its_size() -> None:
    pending = [reservation(1, cores=4, pool=DEBIAN), reservation(2)]
    assert taken(*pending, a=instance(runner="x", kind=UBUNTU)) == {"r2": "a"}


def test_a_promise_of_half_a_kind_is_kept_by_any_that_has_that_half() -> None:
    assert taken(reservation(1, cores=4, pool=Kind("small")), a=instance(runner="x", kind=DEBIAN)) == {"r1": "a"}
    assert taken(reservation(1, cores=4, pool=Kind("large")), a=instance(runner="x", kind=DEBIAN)) == {}


def test_a_plain_instance_rather_takes_what_was_promised_no_pool_instance() -> None:
    pending = [reservation(1, pool=UBUNTU), reservation(2, memory=2_000_000_000), reservation(3)]
    assert taken(*pending, a=instance()) == {"r3": "a"}
    assert taken(*pending, a=instance(), b=instance()) == {"r3": "a", "r2": "b"}
    assert taken(*pending, a=instance(), b=instance(), c=instance()) == {"r3": "a", "r2": "b", "r1": "c"}


reservations = st.lists(
    st.builds(
        reservation,
        st.just(0),
        st.integers(1, 2),
        st.sampled_from([GIB, 2_000_000_000, 2 * GIB]),
        st.none() | st.sampled_from(["job-1", "job-2"]),
        st.none() | st.sampled_from([UBUNTU, DEBIAN, Kind("small")]),
    ),
    max_size=6,
).map(
    lambda made: [
        reservation(number, each.resources.cpu // 1000, each.resources.memory, each.instance_name, each.pool)
        for number, each in enumerate(made)
    ]
)
instances = st.dictionaries(
    st.sampled_from("abcdefg"),
    st.builds(
        instance,
        st.sampled_from(["job-1", "x"]),
        st.integers(1, 2),
        st.sampled_from([GIB, 2 * GIB]),
        st.none() | st.sampled_from(["job-2", "y"]),
        st.none() | st.sampled_from([UBUNTU, DEBIAN]),
    ),
    max_size=6,
)


def may_mean(each: Reservation, seen: Instance) -> bool:
    """Tell whether an instance, new to its host, may be a reservation's at all."""
    if each.instance_name is not None:
        return each.instance_name in {seen.name, seen.runner}
    return len(taken(each, a=seen)) == 1


def laid_in(seen: Instance) -> bool:
    return seen.kind is not None and seen.runner is None


@given(reservations, instances, st.none() | instances, st.sets(st.sampled_from("abcdefg")))
def test_whatever_is_seen_every_pair_is_meant_and_none_that_could_be_is_left_out(
    pending: list[Reservation],
    now: dict[str, Instance],
    before: dict[str, Instance] | None,
    tied: set[str],
) -> None:
    pairs = matches(pending, now, before, tied)
    by_id = {each.id: each for each in pending}
    assert len(set(pairs.values())) == len(pairs), "an instance has taken over two"
    for identity, label in pairs.items():
        assert may_mean(by_id[identity], now[label])
        if before is not None and label in before:
            assert label not in tied
            assert now[label].runner != before[label].runner
            assert by_id[identity].instance_name is not None or laid_in(before[label])
    left = [each for each in pending if each.id not in pairs]
    idle = [label for label in now if label not in pairs.values()]
    known = before or {}
    gone = {(each.name, each.resources) for label, each in known.items() if label not in now}
    new = [label for label in idle if before is not None and label not in before and label not in tied]
    new = [label for label in new if (now[label].name, now[label].resources) not in gone]  # it may have moved
    assert not [(each.id, label) for label in new for each in left if may_mean(each, now[label])]


@given(reservations, st.data())
def test_instances_that_look_as_they_were_asked_for_take_over_as_many_as_they_are_and_the_oldest(
    pending: list[Reservation], data: st.DataObject
) -> None:
    made = data.draw(st.lists(st.sampled_from(pending), unique_by=lambda each: each.id) if pending else st.just([]))
    assume(all(each.pool != Kind("small") for each in pending))  # half a kind may be taken for another's
    pooled = {each.resources for each in pending if each.pool}
    assume(len({round(each.memory / GIB) for each in pooled}) == len({each.memory for each in pooled}))
    now = {
        f"i{each.id}": Instance(
            each.instance_name or "any", each.resources, runner="x" if each.pool else None, kind=each.pool
        )
        for each in data.draw(st.permutations(made))
    }
    pairs = matches(pending, now, {}, ())
    assert set(pairs.values()) == set(now)
    by_id = {each.id: each for each in pending}

    def looks(each: Reservation) -> object:
        return each.instance_name or (each.pool, each.resources)

    for each in pending:
        twins = [other.id for other in pending if looks(other) == looks(each)]
        came = sum(looks(other) == looks(each) for other in made)
        assert [twin for twin in twins if twin in pairs] == twins[:came], (looks(each), by_id, pairs)


def test_an_instance_that_moves_to_another_project_takes_nothing_over() -> None:
    before = {"a/x": instance("x"), "a/y": instance("y")}
    now = {"b/x": instance("x"), "a/y": instance("y")}
    assert matches([reservation(1)], now, before, ()) == {}
    assert matches([reservation(1)], now | {"b/z": instance("z")}, before, ()) == {"r1": "b/z"}


def test_one_of_the_same_name_that_comes_beside_it_is_new() -> None:
    before = {"a/x": instance("x")}
    both = {"b/x": instance("x"), "c/x": instance("x")}
    assert list(matches([reservation(1)], both, before, ())) == ["r1"]
    assert list(matches([reservation(1)], before | {"b/x": instance("x")}, before, ())) == ["r1"]
    assert list(matches([reservation(1)], {"b/x": instance("x", cores=2, memory=GIB)}, before, ())) == []
