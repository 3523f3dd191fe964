"""The order in which hosts are kept is the order in which they would be sorted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.model import Demand, Resources, State, View
from lxdsched.placement import fitting
from lxdsched.ranking import Ranking
from lxdsched.strategies import BUILT_IN, Key, Strategy
from tests.unit.test_placement import demand, host

NAMES = [str(number) for number in range(20)]
"""Enough that few targets are sorted and many are filtered."""


@dataclass
class Counted:
    """A strategy that notes which hosts it is asked about."""

    name: str = "counted"
    ignores_demand: bool = True
    asked: list[str] = field(default_factory=list)

    def key(self, view: View, demand: Demand) -> Key:
        self.asked.append(view.host)
        return (view.claimed.cpu,)


def ranked(ranking: Ranking, asked: Demand | None = None, most: int = 99) -> list[str]:
    wanted = asked or demand()
    return [view.host for view in ranking.best(wanted, fitting(wanted), most)]


def filled(strategy: Strategy, *views: View, random: Random | None = None) -> Ranking:
    ranking = Ranking(strategy, random or Random(1))
    for view in views:
        ranking.put(view)
    return ranking


views = st.builds(
    host,
    st.sampled_from(NAMES),
    cores=st.integers(0, 8),
    memory=st.integers(0, 8),
    used=st.integers(0, 9),
    used_memory=st.integers(0, 9),
    instances=st.integers(0, 3),
    state=st.sampled_from([State.LIVE, State.POLLED, State.STALE, State.STALE, *State]),
    known=st.sampled_from([True, True, True, False]),
)
targets = st.none() | st.frozensets(st.sampled_from([*NAMES, "nowhere"]))
demands = st.builds(
    lambda cores, memory, targets: demand(cores, memory, targets=targets), st.integers(0, 4), st.integers(0, 4), targets
)


@given(st.sampled_from(BUILT_IN), st.booleans(), st.lists(views, min_size=8, max_size=40), st.data())
def test_whatever_has_changed_the_best_are_those_that_sorting_all_would_find(
    strategy: Strategy, full: bool, changes: list[View], data: st.DataObject
) -> None:
    known = {name: host(name) for name in NAMES} if full else {}
    ranking = filled(strategy, *known.values())
    asks = [*data.draw(st.lists(st.integers(0, len(changes)), max_size=3)), len(changes)]
    for number in range(len(changes) + 1):
        for _ in range(asks.count(number)):
            wanted, most = data.draw(demands), data.draw(st.integers(1, 25))
            agrees(ranking, known, strategy, wanted, most)
        if number < len(changes):
            known[changes[number].host] = changes[number]
            ranking.put(changes[number])


def agrees(ranking: Ranking, known: dict[str, View], strategy: Strategy, wanted: Demand, most: int) -> None:
    fits = fitting(wanted)
    meant = [
        view
        for view in known.values()
        if view.schedulable and fits(view) and (wanted.targets is None or view.host in wanted.targets)
    ]

    def liking(view: View) -> tuple[bool, Key]:
        return (view.state is State.STALE, strategy.key(view, wanted))

    found = ranking.best(wanted, fits, most)
    assert [liking(view) for view in found] == sorted(map(liking, meant))[:most]
    assert len({view.host for view in found}) == len(found)
    assert all(view is known[view.host] for view in found)
    assert {view.host for view in found} <= {view.host for view in meant}


@pytest.mark.parametrize("strategy", BUILT_IN, ids=lambda each: each.name)
def test_hosts_known_from_an_old_view_come_after_all_others(strategy: Strategy) -> None:
    empty, full = host("empty", memory=16), host("full", used=9, used_memory=9, memory=16, instances=9)
    for stale, fresh in ((empty, full), (full, empty)):
        ranking = filled(strategy, replace(stale, state=State.STALE), fresh)
        assert ranked(ranking) == [fresh.host, stale.host]


def test_most_of_them_are_returned_and_no_more() -> None:
    for strategy in BUILT_IN:
        ranking = filled(strategy, *(host(name) for name in NAMES))
        assert [len(ranked(ranking, most=most)) for most in (1, 6, 20, 99)] == [1, 6, 20, 20]


def test_a_host_that_may_no_longer_be_chosen_is_forgotten_until_it_may_again() -> None:
    for strategy in BUILT_IN:
        ranking = filled(strategy, host("a"), host("b", used=3))
        ranking.put(host("a", state=State.UNREACHABLE))
        assert ranked(ranking) == ["b"]
        assert ranked(ranking, demand(targets=frozenset({"a"}))) == []
        ranking.put(host("a"))
        assert set(ranked(ranking)) == {"a", "b"}


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("strategy", BUILT_IN, ids=lambda each: each.name)
def test_equals_stand_in_any_order_anew_at_each_change(strategy: Strategy, few: bool) -> None:
    hosts = [host(name) for name in NAMES]
    ranking = filled(strategy, *hosts)
    wanted = demand(targets=frozenset(NAMES[:2]) if few else None)
    firsts = set()
    for _ in range(300):
        for view in hosts:
            ranking.put(view)
        firsts.add(ranked(ranking, wanted, 1)[0])
    assert firsts == set(NAMES[:2] if few else NAMES)


def test_two_replicas_do_not_prefer_the_same_of_equals() -> None:
    firsts = {ranked(filled(BUILT_IN[0], *map(host, NAMES), random=Random(seed)))[0] for seed in range(50)}
    assert len(firsts) > 10


def test_a_strategy_that_ignores_the_demand_is_asked_once_for_each_change_and_never_by_a_request() -> None:
    strategy = Counted()
    ranking = filled(strategy, host("a"), host("b"), host("c", state=State.DRAINED))
    assert strategy.asked == ["a", "b"]
    for wanted in (demand(), demand(1), demand(targets=frozenset({"a"}))):
        ranked(ranking, wanted)
    assert strategy.asked == ["a", "b"]
    ranking.put(host("b", used=1))
    assert strategy.asked == ["a", "b", "b"]


def test_a_strategy_that_looks_at_the_demand_is_asked_only_about_hosts_that_fit_and_are_meant() -> None:
    strategy = Counted(ignores_demand=False)
    ranking = filled(strategy, host("a"), host("b"), host("full", used=16), host("c", state=State.DRAINED))
    assert strategy.asked == []
    assert ranked(ranking, demand(targets=frozenset({"a", "full", "c", "nowhere"}))) == ["a"]
    assert strategy.asked == ["a"]


def test_of_hosts_in_order_no_more_are_looked_at_than_it_takes() -> None:
    looked: list[str] = []

    def fits(view: View) -> bool:
        looked.append(view.host)
        return view.allocation.resources.cpu >= 3000

    ranking = filled(BUILT_IN[0], *(host(name, used=int(name) % 16) for name in NAMES))
    assert len(ranking.best(demand(), fits, 1)) == 1
    assert len(looked) == len([name for name in NAMES if int(name) % 16 < 3]) + 1


def test_a_strategy_that_raises_leaves_the_others_and_its_own_earlier_word_in_order() -> None:
    strategy = Broken()
    ranking = filled(strategy, host("a", used=1), host("b", used=2))
    strategy.raises = lambda view: view.host == "a"
    with pytest.raises(ArithmeticError):
        ranking.put(host("a", used=9))
    assert ranked(ranking) == ["b"], "what is not known to stand anywhere is not chosen"
    with pytest.raises(ArithmeticError):
        ranking.put(host("a", used=9))
    strategy.raises = lambda _view: False
    ranking.put(host("a", used=9))
    assert ranked(ranking) == ["b", "a"]


@dataclass
class Broken:
    """A strategy that raises for some hosts."""

    name: str = "broken"
    ignores_demand: bool = True
    raises: Callable[[View], bool] = lambda _view: False

    def key(self, view: View, demand: Demand) -> Key:
        if self.raises(view):
            raise ArithmeticError(view.host)
        return (view.claimed.cpu,)


def test_the_views_themselves_are_never_compared() -> None:
    """Two that are alike in everything, even in their luck, stand somewhere: views have no order of their own."""

    class Unlucky(Random):
        def random(self) -> float:
            return 0.5

    for strategy in BUILT_IN:
        ranking = filled(strategy, host("a"), host("b"), replace(host("c"), reason="x"), random=Unlucky())
        assert sorted(ranked(ranking)) == ["a", "b", "c"]


def test_nothing_is_kept_of_a_host_but_its_latest_view() -> None:
    ranking = filled(BUILT_IN[0], *(host("a", used=number % 16) for number in range(500)))
    assert len(ranking.best(Demand(Resources()), lambda _view: True, 999)) == 1
    assert [len(each) for each in (ranking._order, ranking._places, ranking._views)] == [1, 1, 1]
