"""Which hosts fit, which is liked best, and what is said of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.board import Board
from lxdsched.model import (
    NO_CLAIMS,
    Allocation,
    Capacity,
    Claims,
    Code,
    Demand,
    Exclusion,
    InstanceType,
    Reason,
    Refusal,
    Resources,
    State,
    View,
)
from lxdsched.placement import explain, refuse, summary
from lxdsched.strategies import BUILT_IN, DEFAULT

GIB = 1024**3
STRATEGIES = {strategy.name: strategy for strategy in BUILT_IN}


def host(
    name: str,
    *,
    cores: int = 16,
    memory: int = 64,
    used: int = 0,
    used_memory: int = 0,
    instances: int = 0,
    exempt: int = 0,
    state: State = State.POLLED,
    known: bool = True,
) -> View:
    size = Resources(cores * 1000, memory * GIB)
    capacity = Capacity(
        name=name,
        total=size,
        usable=size,
        cpus=frozenset(range(cores)),
        architectures=frozenset({"x86_64"}),
        instance_types=frozenset({InstanceType.CONTAINER}),
    )
    return View(
        host=name,
        state=state,
        reason=None if state is State.POLLED else f"made {state}",
        capacity=capacity if known else None,
        allocation=Allocation(Resources(used * 1000, used_memory * GIB), counted=instances, exempt=exempt),
        observed_at=1.0,
    )


def demand(cores: int = 2, memory: int = 2, **more: object) -> Demand:
    return Demand(Resources(cores * 1000, memory * GIB), **more)  # type: ignore[arg-type]


def ranked(
    views: Sequence[View],
    asked: Demand | None = None,
    strategy: str = DEFAULT,
    random: Random | None = None,
    claims: Mapping[str, Claims] | None = None,
) -> list[View]:
    """Return the hosts that fit, best first."""
    board = Board(lambda name: (claims or {}).get(name, NO_CLAIMS), random or Random(1))
    for view in views:
        board.show(view)
    return list(board.best(asked or demand(), STRATEGIES[strategy], len(views)))


def chosen(*views: View, asked: Demand | None = None, strategy: str = DEFAULT, **claims: Claims) -> str:
    return ranked(views, asked, strategy, claims=claims)[0].host


def refused(*views: View, asked: Demand | None = None) -> Refusal:
    assert not ranked(views, asked)
    return refuse(views, asked or demand())


def left_out(*views: View, asked: Demand | None = None) -> Mapping[str, Exclusion]:
    return explain(views, asked or demand())


def test_the_host_with_the_fewest_allocated_cores_is_chosen() -> None:
    assert chosen(host("a", used=5), host("b", used=3), host("c", used=4)) == "b"


def test_the_fewest_allocated_cores_win_even_on_a_fuller_host() -> None:
    assert chosen(host("large", cores=64, used=5), host("small", cores=8, used=4)) == "small"


def test_reservations_count_as_allocated() -> None:
    assert chosen(host("a", used=1), host("b", used=3), a=Claims(Resources(4000, GIB))) == "b"


def test_a_host_that_lacks_memory_is_passed_over() -> None:
    assert chosen(host("a", memory=8, used_memory=7), host("b", used=9)) == "b"


def test_a_host_whose_last_core_is_taken_fits_exactly_once_more() -> None:
    assert chosen(host("a", cores=4, used=2)) == "a"
    assert refused(host("a", cores=4, used=3)).code is Code.NO_CAPACITY


def test_among_equals_the_smaller_share_of_cpu_then_of_memory_then_the_fewer_instances_win() -> None:
    assert chosen(host("a", cores=8, used=2), host("b", cores=32, used=2)) == "b"
    assert chosen(host("a", used=2, used_memory=9), host("b", used=2, used_memory=3)) == "b"
    assert chosen(host("a", used=2, instances=9), host("b", used=2, instances=1)) == "b"


def test_among_perfect_equals_chance_decides() -> None:
    views = [host("a"), host("b"), host("c")]
    random = Random(7)
    hosts = {ranked(views, random=random)[0].host for _ in range(60)}
    assert hosts == {"a", "b", "c"}


def test_a_stale_host_comes_after_every_fresh_one() -> None:
    assert chosen(host("a", state=State.STALE), host("b", used=13)) == "b"
    assert chosen(host("a", state=State.STALE), host("b", used=16)) == "a"


@pytest.mark.parametrize(
    ("strategy", "best"),
    [
        ("least-allocated", "small"),
        ("least-allocated-percent", "large"),
        ("most-allocated", "large"),
        ("balanced", "large"),
        ("fewest-instances", "crowded"),
    ],
)
def test_each_strategy_has_its_own_favourite(strategy: str, best: str) -> None:
    small = host("small", cores=8, used=4, used_memory=1, instances=3, exempt=3)
    large = host("large", cores=64, used=6, memory=256, used_memory=8, instances=2, exempt=3)
    crowded = host("crowded", cores=8, used=5, used_memory=1, instances=4)
    assert chosen(small, large, crowded, strategy=strategy) == best


def test_balanced_looks_at_the_scarcer_of_both() -> None:
    cpu_heavy = host("cpu-heavy", used=12, used_memory=1)
    memory_heavy = host("memory-heavy", used=1, used_memory=40)
    assert chosen(cpu_heavy, memory_heavy, strategy="balanced") == "memory-heavy"


def test_only_targets_may_be_chosen_and_unknown_ones_are_named() -> None:
    asked = demand(targets=frozenset({"b", "nowhere"}))
    views = [host("a"), host("b", used=9)]
    assert [view.host for view in ranked(views, asked)] == ["b"]
    assert {name: why.reason for name, why in left_out(*views, asked=asked).items()} == {
        "nowhere": Reason.NOT_CONFIGURED
    }


def test_a_shortage_says_what_was_asked_what_is_free_and_what_takes_it() -> None:
    view = replace(host("a", used=13, used_memory=63), claims=Claims(Resources(2000, 0)))
    exclusion = refused(view).excluded["a"]
    assert exclusion.reason is Reason.INSUFFICIENT_CPU
    assert exclusion.message == (
        "2 cores asked, 1 free of 16 (13 allocated, 2 reserved); "
        "2048 MiB of memory asked, 1024 MiB free of 65536 MiB (64512 MiB allocated)"
    )


def test_a_host_that_carries_more_than_it_has_has_less_than_nothing_free() -> None:
    overfull = host("a", cores=4, used=9)
    assert overfull.free.cpu == -5000
    assert "-5 free of 4" in refused(overfull).excluded["a"].message


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (State.UNREACHABLE, Reason.UNREACHABLE),
        (State.UNTRUSTED, Reason.UNTRUSTED),
        (State.RESTRICTED, Reason.RESTRICTED),
        (State.DRAINED, Reason.DRAINED),
    ],
)
def test_a_host_that_may_not_be_chosen_is_named_with_its_state(state: State, reason: Reason) -> None:
    exclusion = refused(host("a", state=state)).excluded["a"]
    assert (exclusion.reason, exclusion.message) == (reason, f"made {state}")


@pytest.mark.parametrize("state", [State.LIVE, State.POLLED, State.DOUBTFUL, State.STALE])
def test_a_host_that_answers_may_be_chosen(state: State) -> None:
    assert chosen(host("a", state=state)) == "a"


def test_architecture_and_instance_type_must_be_offered() -> None:
    assert refused(host("a"), asked=demand(architecture="aarch64")).excluded["a"].reason is Reason.WRONG_ARCHITECTURE
    asked = demand(instance_type=InstanceType.VIRTUAL_MACHINE)
    assert refused(host("a"), asked=asked).excluded["a"].reason is Reason.WRONG_INSTANCE_TYPE


@pytest.mark.parametrize(
    ("views", "code"),
    [
        ([host("a", used=16)], Code.NO_CAPACITY),
        ([host("a", cores=1)], Code.NEVER_FITS),
        ([host("a", memory=1)], Code.NEVER_FITS),
        ([host("a", cores=1), host("b", used=16)], Code.NO_CAPACITY),
        ([host("a", state=State.UNREACHABLE)], Code.NO_HOST_REACHABLE),
        ([host("a", state=State.UNTRUSTED), host("b", state=State.RESTRICTED)], Code.NO_HOST_REACHABLE),
        ([host("a", cores=1), host("b", state=State.UNREACHABLE)], Code.NO_CAPACITY),
        ([host("a", cores=1), host("b", state=State.UNREACHABLE, known=False)], Code.NO_CAPACITY),
        ([host("a", cores=1), host("b", cores=1, state=State.UNREACHABLE)], Code.NEVER_FITS),
        ([host("a", cores=1), host("b", state=State.DRAINED)], Code.NO_CAPACITY),
        ([host("a", state=State.DRAINED)], Code.NO_CAPACITY),
    ],
)
def test_a_refusal_tells_never_from_not_now_from_nobody_there(views: list[View], code: Code) -> None:
    assert refused(*views).code is code


def test_targets_that_are_all_unknown_never_fit() -> None:
    assert refused(host("a"), asked=demand(targets=frozenset({"x"}))).code is Code.NEVER_FITS


def test_a_summary_counts_the_hosts_by_reason() -> None:
    views = [
        host("a", used=16),
        host("b", used=15),
        host("c", used_memory=64),
        host("d", state=State.UNREACHABLE),
    ]
    assert (
        summary(4, 0, refused(*views).excluded)
        == "0/4 hosts fit: 1 unreachable, 2 insufficient cpu, 1 insufficient memory"
    )


amounts = st.integers(0, 20)


@given(
    st.lists(st.tuples(amounts, amounts, amounts, amounts), min_size=1, max_size=8),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from(sorted(STRATEGIES)),
)
def test_whatever_the_fleet_the_chosen_host_can_hold_the_demand_and_the_others_cannot_or_come_later(
    fleet: list[tuple[int, int, int, int]], asked: tuple[int, int], strategy: str
) -> None:
    views = [
        host(str(number), cores=cores, memory=memory, used=used, used_memory=used_memory)
        for number, (cores, memory, used, used_memory) in enumerate(fleet)
    ]
    wanted = demand(*asked)
    fitting, others = ranked(views, wanted, strategy), left_out(*views, asked=wanted)
    assert {view.host for view in fitting} | others.keys() == {view.host for view in views}
    assert all(view.free.covers(wanted.resources) for view in fitting)
    by_name = {view.host: view for view in views}
    assert not any(by_name[name].free.covers(wanted.resources) for name in others)
    keys = [STRATEGIES[strategy].key(view, wanted) for view in fitting]
    assert keys == sorted(keys)
