"""The use case: a demand in, a placement or refusal out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred

from lxdsched.ledger.book import Candidate
from lxdsched.model import Claims, Code, Instance, Kind, Placement, Reason, Refusal, Resources, State, View
from lxdsched.scheduler import MOST_ALTERNATES, UnknownStrategyError
from tests.ledger.bench import at_once
from tests.unit.scheduled import LIFE, Scheduled
from tests.unit.test_board import stocked
from tests.unit.test_placement import GIB, demand, host

UBUNTU = Kind("small", "ubuntu")


def test_a_demand_is_placed_on_the_best_host_and_claimed_there() -> None:
    scheduled = Scheduled(host("a", used=2), host("b", used=1))
    answer = scheduled.placed()
    assert answer.view.host == "b"
    assert answer.reservation is not None
    assert (answer.reservation.host, answer.reservation.resources) == ("b", Resources(2000, 2 * GIB))
    assert scheduled.living() == [answer.reservation]
    assert scheduled.reserved() == {"b": 2000}
    assert answer.view.reserved.cpu == 2000, "the answer shows the host with what it claims"


def test_what_is_claimed_is_not_given_away_again() -> None:
    scheduled = Scheduled(host("a", cores=4), host("b", cores=5))
    hosts = [scheduled.placed().view.host for _ in range(4)]
    assert sorted(hosts) == ["a", "a", "b", "b"]
    assert scheduled.refused().code is Code.NO_CAPACITY
    scheduled.clock.advance(LIFE)
    assert scheduled.placed().view.host in {"a", "b"}


def test_an_instance_that_is_seen_takes_the_place_of_its_claim() -> None:
    scheduled = Scheduled(host("a", cores=4))
    scheduled.placed()
    size = Resources(2000, 2 * GIB)
    view = host("a", cores=4, used=2, used_memory=2)
    scheduled.fleet.show(
        replace(view, allocation=replace(view.allocation, members={"default/one": Instance("one", size)}))
    )
    assert scheduled.reserved() == {}
    assert scheduled.scheduler.snapshot()[0].claimed.cpu == 2000
    assert scheduled.placed().view.free.cpu == 0


def test_only_the_instances_of_a_listing_that_is_new_are_looked_at() -> None:
    """The same listing in another state of its host, or the first one of all, tells of no new instance."""
    size = Resources(2000, 2 * GIB)
    unlisted = replace(host("a", known=False, state=State.UNREACHABLE), observed_at=None)
    scheduled = Scheduled(unlisted)
    view = host("a", used=2, used_memory=2)
    listed = replace(view, allocation=replace(view.allocation, members={"default/one": Instance("one", size)}))
    at_once(scheduled.ledger.reserve(demand(), lambda: [Candidate("a", Resources(99_000, 99 * GIB))]))
    scheduled.fleet.show(listed)
    assert scheduled.reserved() == {"a": 2000}, "it may have been there for long"
    scheduled.fleet.show(replace(listed, state=State.UNREACHABLE))
    scheduled.fleet.show(replace(listed, state=State.LIVE))
    assert scheduled.reserved() == {"a": 2000}
    scheduled.fleet.show(host("a"))
    scheduled.fleet.show(listed)
    assert scheduled.reserved() == {}


def test_the_hosts_that_are_meant_are_brought_up_to_date_before_the_choice() -> None:
    scheduled = Scheduled(host("a"), host("b", used=1))
    waiting: Deferred[None] = Deferred()
    scheduled.fleet.refreshing = lambda: waiting
    answers: list[Placement | Refusal] = []
    asked = demand(targets=frozenset({"a", "b"}))
    Deferred.fromCoroutine(scheduled.scheduler.schedule(asked)).addCallback(answers.append)
    assert scheduled.fleet.refreshed == [{"a", "b"}]
    assert not answers
    scheduled.fleet.show(host("a", used=9))
    waiting.callback(None)
    (answer,) = answers
    assert isinstance(answer, Placement)
    assert answer.view.host == "b"


def test_alternates_are_the_next_best_in_order() -> None:
    scheduled = Scheduled(*(host(str(number), used=number) for number in range(9)))
    answer = scheduled.placed()
    assert (answer.view.host, answer.alternates) == ("0", ("1", "2", "3", "4", "5"))
    assert len(answer.alternates) == MOST_ALTERNATES
    assert scheduled.reserved() == {"0": 2000}, "nothing is claimed on them"


def test_a_host_that_does_not_fit_or_is_not_meant_is_no_alternate() -> None:
    scheduled = Scheduled(host("a"), host("b", used=1), host("full", used=16), host("c", used=2))
    assert scheduled.placed(demand(targets=frozenset({"a", "c", "full"}))).alternates == ("c",)


def test_a_dry_run_chooses_and_explains_and_claims_nothing() -> None:
    scheduled = Scheduled(host("a", used=1), host("b"), host("full", used=16), host("away", state=State.UNREACHABLE))
    asked = demand(targets=frozenset({"a", "b", "full", "away", "nowhere"}), request_id="r-1")
    answer = scheduled.placed(asked, dry_run=True)
    assert (answer.view.host, answer.alternates, answer.reservation, answer.hosts) == ("b", ("a",), None, 5)
    assert answer.excluded is not None
    assert {name: why.reason for name, why in answer.excluded.items()} == {
        "full": Reason.INSUFFICIENT_CPU,
        "away": Reason.UNREACHABLE,
        "nowhere": Reason.NOT_CONFIGURED,
    }
    assert scheduled.living() == []
    assert scheduled.reserved() == {}
    assert scheduled.placed(asked).reservation is not None, "its key was not used up"


def test_a_dry_run_tells_what_would_become_of_a_request_not_what_became_of_it() -> None:
    scheduled = Scheduled(host("a"), host("b", used=1))
    scheduled.placed(demand(request_id="r-1"))
    assert scheduled.placed(demand(request_id="r-1"), dry_run=True).view.host == "b"


def test_a_dry_run_that_fits_nowhere_is_refused_as_any() -> None:
    answer = Scheduled(host("a", used=16)).ask(dry_run=True)
    assert isinstance(answer, Refusal)
    assert answer.code is Code.NO_CAPACITY


def test_a_pool_instance_is_promised_once_and_then_another_host_is_better() -> None:
    scheduled = Scheduled(host("a"), stocked(host("b", used=5), {UBUNTU: 1}))
    asked = demand(pool=UBUNTU)
    tried = scheduled.placed(asked, dry_run=True)
    assert (tried.view.host, tried.pooled) == ("b", True)
    first = scheduled.placed(asked)
    assert (first.view.host, first.pooled) == ("b", True)
    assert first.reservation is not None
    assert first.reservation.pool == UBUNTU
    tried = scheduled.placed(asked, dry_run=True)
    assert (tried.view.host, tried.pooled) == ("a", False)
    second = scheduled.placed(asked)
    assert (second.view.host, second.pooled) == ("a", False)


def test_an_answer_is_not_pooled_where_no_pool_was_asked_for() -> None:
    scheduled = Scheduled(stocked(host("a"), {UBUNTU: 1}))
    assert not scheduled.placed().pooled
    assert scheduled.placed(demand(pool=UBUNTU)).pooled


@pytest.mark.parametrize(
    ("views", "code"),
    [
        ([host("a", cores=1)], Code.NEVER_FITS),
        ([host("a", used=15)], Code.NO_CAPACITY),
        ([host("a", state=State.UNREACHABLE)], Code.NO_HOST_REACHABLE),
        ([host("a", state=State.UNREACHABLE), host("b", used=15)], Code.NO_CAPACITY),
    ],
)
def test_what_fits_nowhere_is_refused_with_the_reason_of_each_host(views: list[View], code: Code) -> None:
    scheduled = Scheduled(*views)
    refusal = scheduled.refused()
    assert refusal.code is code
    assert refusal.excluded.keys() == {view.host for view in views}
    assert scheduled.living() == []


def test_a_refusal_names_what_is_reserved() -> None:
    scheduled = Scheduled(host("a", cores=3))
    scheduled.placed()
    assert scheduled.refused().excluded["a"].message == "2 cores asked, 1 free of 3 (0 allocated, 2 reserved)"


def test_a_request_may_name_a_strategy_that_is_allowed() -> None:
    scheduled = Scheduled(host("a", used=1), host("b", used=2))
    assert scheduled.placed(strategy="most-allocated").view.host == "b"
    assert scheduled.placed(strategy="least-allocated").view.host == "a"


def test_a_strategy_that_is_not_allowed_is_an_error_before_anything_is_asked() -> None:
    scheduled = Scheduled(host("a"))
    with pytest.raises(
        UnknownStrategyError, match=r"'fewest-instances' is not a strategy .*: balanced, least-allocated"
    ):
        scheduled.ask(strategy="fewest-instances")
    assert scheduled.fleet.refreshed == []


def test_a_survey_asks_every_host_and_a_snapshot_none() -> None:
    scheduled = Scheduled(host("a"), host("b", state=State.UNREACHABLE))
    scheduled.placed()
    scheduled.fleet.refreshed.clear()
    assert [view.host for view in scheduled.scheduler.snapshot()] == ["a", "b"]
    assert scheduled.fleet.refreshed == []
    survey = at_once(scheduled.scheduler.survey())
    assert scheduled.fleet.refreshed == [None]
    assert [view.claims for view in survey] == [Claims(Resources(2000, 2 * GIB)), Claims()]


def test_a_claim_that_ends_is_given_away_by_the_next_request() -> None:
    scheduled = Scheduled(host("a", cores=2))
    made = scheduled.placed().reservation
    assert made is not None
    assert scheduled.refused().code is Code.NO_CAPACITY
    assert at_once(scheduled.ledger.release(made.id))
    scheduled.placed()
    scheduled.clock.advance(LIFE)
    scheduled.placed()
    assert len(scheduled.living()) == 1
