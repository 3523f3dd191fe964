"""What a request finds: every host's latest view, what is claimed there, and the best of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

import pytest

from lxdsched.board import Board
from lxdsched.model import NO_CLAIMS, Allocation, Claims, Demand, Kind, Resources, State, View
from lxdsched.strategies import BUILT_IN, Key, Strategy
from tests.unit.test_placement import GIB, demand, host

UBUNTU = Kind("small", "ubuntu")
DEBIAN = Kind("small", "debian")
LEAST, MOST = BUILT_IN[0], BUILT_IN[3]


class Boarded:
    """A board, and the claims that it is told of."""

    def __init__(self, *views: View) -> None:
        self.claimed: dict[str, Claims] = {}
        self.asked: list[str] = []
        self.board = Board(self._claims, Random(1))
        for view in views:
            self.board.show(view)

    def _claims(self, name: str) -> Claims:
        self.asked.append(name)
        return self.claimed.get(name, NO_CLAIMS)

    def claim(self, name: str, cores: int = 0, *pools: Kind) -> None:
        """Claim so much on a host, instead of what was claimed there."""
        self.claimed[name] = Claims(Resources(cores * 1000, 0), pools)
        self.board.touch(name)

    def best(self, asked: Demand | None = None, strategy: Strategy = LEAST, most: int = 9) -> list[str]:
        return [view.host for view in self.board.best(asked or demand(), strategy, most)]

    def view(self, name: str) -> View:
        view = self.board.view(name)
        assert view is not None
        return view


def stocked(view: View, ready: Mapping[Kind, int]) -> View:
    return replace(view, allocation=replace(view.allocation, ready=ready))


def test_an_empty_board_knows_no_host() -> None:
    boarded = Boarded()
    assert boarded.best() == []
    assert boarded.board.views() == []
    assert boarded.board.view("a") is None


def test_hosts_are_shown_in_the_order_in_which_they_came() -> None:
    boarded = Boarded(host("c"), host("a"), host("b"))
    boarded.board.show(host("c", used=3))
    assert [view.host for view in boarded.board.views()] == ["c", "a", "b"]
    assert [view.host for view in boarded.board.views({"b", "c", "x"})] == ["c", "b"]


def test_the_latest_view_is_shown_and_ranked() -> None:
    boarded = Boarded(host("a"), host("b", used=1))
    assert boarded.best() == ["a", "b"]
    boarded.board.show(host("a", used=2))
    assert boarded.best() == ["b", "a"]
    assert boarded.view("a").allocation.resources.cpu == 2000


def test_what_is_claimed_is_merged_into_the_views() -> None:
    boarded = Boarded(host("a"), host("b", used=1))
    boarded.claim("a", 3)
    assert boarded.best() == ["b", "a"]
    view = boarded.view("a")
    assert (view.reserved.cpu, view.claimed.cpu, view.free.cpu) == (3000, 3000, 13000)
    boarded.claim("a")
    assert boarded.best() == ["a", "b"]
    assert boarded.view("a").claims == NO_CLAIMS


def test_what_is_claimed_is_merged_into_later_views_too() -> None:
    boarded = Boarded(host("a"))
    boarded.claim("a", 3)
    boarded.board.show(host("a", used=2))
    assert boarded.view("a").claimed.cpu == 5000


def test_what_was_claimed_before_a_host_was_shown_is_known() -> None:
    boarded = Boarded()
    boarded.claim("a", 15)
    boarded.board.show(host("a"))
    assert boarded.view("a").free.cpu == 1000
    assert boarded.best() == []


def test_a_host_that_was_never_shown_does_not_come_by_being_claimed() -> None:
    boarded = Boarded()
    boarded.claim("a", 1)
    assert boarded.board.views() == []


def test_where_nothing_has_changed_nothing_is_worked_out() -> None:
    boarded = Boarded(host("a"), host("b"))
    boarded.best()
    boarded.asked.clear()
    view = boarded.view("a")
    boarded.best()
    assert boarded.asked == []
    assert boarded.view("a") is view
    for _ in range(5):
        boarded.claim("b", 1)
    boarded.best()
    assert boarded.asked == ["b"], "of many changes between two requests, one is work"


def test_claims_that_change_while_they_are_looked_at_are_not_missed() -> None:
    """A ledger finds out that a reservation has expired when it is asked, and says so at once."""

    class Expiring(Boarded):
        def _claims(self, name: str) -> Claims:
            if name == "a" and self.claimed.pop("b", NO_CLAIMS) != NO_CLAIMS:
                self.board.touch("b")
            return super()._claims(name)

    boarded = Expiring(host("a"), host("b"))
    boarded.best()
    boarded.claimed["b"] = Claims(Resources(15_000, 0))
    boarded.board.touch("b")
    boarded.board.touch("a")
    assert {view.host: view.reserved.cpu for view in boarded.board.views()} == {"a": 0, "b": 0}


def test_each_strategy_has_its_own_order_of_the_same_hosts() -> None:
    boarded = Boarded(host("a", used=1), host("b", used=2))
    for _ in range(2):
        assert boarded.best(strategy=LEAST) == ["a", "b"]
        assert boarded.best(strategy=MOST) == ["b", "a"]
        assert boarded.best(strategy=BUILT_IN[2]) == ["a", "b"]
    boarded.board.show(host("a", used=3))
    assert boarded.best(strategy=LEAST) == ["b", "a"]
    assert boarded.best(strategy=MOST) == ["a", "b"]
    assert boarded.best(strategy=BUILT_IN[2]) == ["b", "a"]


@pytest.mark.parametrize("strategy", BUILT_IN, ids=lambda each: each.name)
def test_hosts_with_a_ready_pool_instance_of_the_kind_come_first(strategy: Strategy) -> None:
    boarded = Boarded(
        host("empty"),
        stocked(host("busy", used=9, instances=9), {UBUNTU: 1}),
        stocked(host("debian", used=4, instances=4), {DEBIAN: 3}),
        stocked(host("full", used=16), {UBUNTU: 1}),
        stocked(host("away", state=State.DRAINED), {UBUNTU: 1}),
    )
    found = boarded.best(demand(pool=UBUNTU), strategy)
    assert found[0] == "busy"
    assert sorted(found[1:]) == ["debian", "empty"]
    assert found[1:] == [name for name in boarded.best(demand(), strategy) if name != "busy"]


def test_a_pool_instance_that_was_seen_long_ago_is_no_reason_to_prefer_its_host() -> None:
    boarded = Boarded(host("a", used=9), stocked(host("b", state=State.STALE), {UBUNTU: 1}))
    assert boarded.best(demand(pool=UBUNTU)) == ["a", "b"]


def test_among_hosts_with_a_ready_pool_instance_the_strategy_decides() -> None:
    boarded = Boarded(stocked(host("a", used=2), {UBUNTU: 5}), stocked(host("b", used=1), {UBUNTU: 1}), host("c"))
    assert boarded.best(demand(pool=UBUNTU)) == ["b", "a", "c"]
    assert boarded.best(demand(pool=UBUNTU), MOST) == ["a", "b", "c"]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_are_found_than_were_asked_for_ready_or_not(most: int) -> None:
    views = [stocked(host("a", used=3), {UBUNTU: 1}), stocked(host("b", used=2), {UBUNTU: 1}), host("c"), host("d")]
    found = Boarded(*views).best(demand(pool=UBUNTU), most=most)
    assert len(found) == most
    assert found[:2] == ["b", "a"][:most]


def test_half_a_kind_is_met_by_every_pool_instance_that_has_that_half() -> None:
    boarded = Boarded(host("a"), stocked(host("b", used=9), {DEBIAN: 1}))
    assert boarded.best(demand(pool=Kind("small")))[0] == "b"
    assert boarded.best(demand(pool=Kind(image_alias="debian")))[0] == "b"
    assert boarded.best(demand(pool=Kind()))[0] == "b"
    assert boarded.best(demand(pool=Kind("large")))[0] == "a"


def test_a_pool_instance_that_is_promised_is_not_promised_again() -> None:
    boarded = Boarded(host("a"), stocked(host("b", used=9), {UBUNTU: 2}))
    boarded.claim("b", 1, UBUNTU)
    assert boarded.best(demand(pool=UBUNTU))[0] == "b"
    boarded.claim("b", 2, UBUNTU, UBUNTU)
    assert boarded.best(demand(pool=UBUNTU))[0] == "a"
    boarded.claim("b", 1, DEBIAN, UBUNTU)
    assert boarded.best(demand(pool=UBUNTU))[0] == "b", "the other one is of another kind"
    boarded.claim("b", 2, Kind("small"), UBUNTU)
    assert boarded.best(demand(pool=UBUNTU))[0] == "a", "the other one may become the same"


def test_only_targets_are_found_stocked_or_not() -> None:
    boarded = Boarded(stocked(host("a"), {UBUNTU: 1}), stocked(host("b", used=9), {UBUNTU: 1}), host("c", used=1))
    asked = demand(pool=UBUNTU, targets=frozenset({"b", "c", "x"}))
    assert boarded.best(asked) == ["b", "c"]


def test_a_pool_that_has_run_out_is_forgotten() -> None:
    boarded = Boarded(host("a"), stocked(host("b", used=9), {UBUNTU: 1, DEBIAN: 1}))
    assert boarded.best(demand(pool=UBUNTU))[0] == "b"
    boarded.board.show(stocked(host("b", used=9), {DEBIAN: 1}))
    assert boarded.best(demand(pool=UBUNTU))[0] == "a"
    assert boarded.best(demand(pool=DEBIAN))[0] == "b"
    boarded.board.show(host("b", used=9))
    assert boarded.best(demand(pool=DEBIAN))[0] == "a"
    assert boarded.board._pools == {}


@dataclass
class Moody:
    """A strategy that raises while it is in the mood to."""

    name: str = "moody"
    ignores_demand: bool = True
    raises: bool = False

    def key(self, view: View, demand: Demand) -> Key:
        if self.raises:
            raise ArithmeticError(view.host)
        return (view.claimed.cpu,)


@pytest.mark.parametrize("ignores_demand", [True, False])
def test_a_strategy_that_raises_loses_no_host_and_fails_nobody_else(ignores_demand: bool) -> None:
    moody = Moody(ignores_demand=ignores_demand)
    boarded = Boarded(host("a", used=1), host("b", used=2))
    assert boarded.best(strategy=moody) == ["a", "b"]
    moody.raises = True
    boarded.board.show(host("a", used=3))
    boarded.claim("b", 9)
    assert boarded.best(strategy=LEAST) == ["a", "b"]
    assert [view.claimed.cpu for view in boarded.board.views()] == [3000, 11_000]
    for _ in range(2):
        with pytest.raises(ArithmeticError):
            boarded.best(strategy=moody)
    assert boarded.best(strategy=LEAST) == ["a", "b"]
    boarded.claim("a", 9)
    moody.raises = False
    assert boarded.best(strategy=moody) == ["b", "a"] == boarded.best(strategy=LEAST)


def test_a_strategy_that_raises_from_the_first_is_asked_again_by_the_next_request() -> None:
    moody = Moody(raises=True)
    boarded = Boarded(host("a"))
    with pytest.raises(ArithmeticError):
        boarded.best(strategy=moody)
    moody.raises = False
    assert boarded.best(strategy=moody) == ["a"]


def test_a_strategy_whose_keys_have_no_order_fails_nobody_else() -> None:
    class Unordered(Moody):
        def key(self, view: View, demand: Demand) -> Key:
            return (float("nan"),)  # type: ignore[return-value]

    boarded = Boarded(*(host(str(number)) for number in range(9)))
    for number in range(90):
        boarded.best(strategy=Unordered())
        boarded.board.show(host(str(number % 9), used=number % 7))
        best = boarded.best()
        assert [boarded.view(name).claimed.cpu for name in best] == sorted(
            view.claimed.cpu for view in boarded.board.views()
        )
        assert sorted(boarded.best(strategy=Unordered())) == sorted(best)


def test_the_best_is_found_in_the_views_as_they_are_shown() -> None:
    boarded = Boarded(host("a"), host("b", used=2, used_memory=3, instances=1))
    boarded.claim("a", 5)
    found: Sequence[View] = boarded.board.best(demand(), LEAST, 9)
    assert [view is boarded.view(view.host) for view in found] == [True, True]
    assert found[0].allocation == Allocation(Resources(2000, 3 * GIB), counted=1)


def test_a_host_that_is_removed_is_neither_found_nor_shown_and_may_come_back() -> None:
    boarded = Boarded(stocked(host("a"), {UBUNTU: 1}), host("b"))
    assert boarded.best(demand(pool=UBUNTU)) == ["a", "b"]
    boarded.claim("a", 1)
    boarded.board.remove("a")
    boarded.board.remove("nobody")
    boarded.claim("a", 2)
    assert boarded.board._pools == {}
    assert boarded.best(demand(pool=UBUNTU)) == ["b"]
    assert boarded.best() == ["b"]
    assert [view.host for view in boarded.board.views()] == ["b"]
    assert boarded.board.view("a") is None
    boarded.board.show(host("a"))
    assert boarded.best(strategy=MOST) == ["a", "b"]
    assert boarded.view("a").reserved == Resources(2000, 0)
