"""Requests that are repeated, and those that lose a race."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lxdsched.ledger.book import Candidate, Rank
from lxdsched.ledger.memory import MemoryLedger
from lxdsched.model import Code, Demand, Instance, Kind, Placement, Refusal, Reservation, Resources, State
from lxdsched.repeats import RequestKey
from lxdsched.scheduler import RepeatedRequestError
from tests.ledger.bench import at_once
from tests.unit.scheduled import LIFE, Beaten, Scheduled
from tests.unit.test_board import stocked
from tests.unit.test_placement import GIB, demand, host

UBUNTU = Kind("small", "ubuntu")


@pytest.mark.parametrize("targets", [None, frozenset({"a"})])
def test_a_repeated_request_gets_the_same_answer_and_claims_nothing(targets: frozenset[str] | None) -> None:
    scheduled = Scheduled(host("a"), host("b", used=1))
    asked = demand(request_id="r-1", instance_name="job", targets=targets)
    first = scheduled.placed(asked)
    scheduled.fleet.show(host("a", used=16))
    scheduled.fleet.refreshed.clear()
    again = scheduled.placed(asked)
    assert (again.reservation, again.alternates, again.view.host) == (first.reservation, first.alternates, "a")
    assert scheduled.fleet.refreshed == [], "and no host is asked"
    assert scheduled.reserved() == {"a": 2000}
    assert scheduled.placed(replace(asked, request_id="r-2", targets=None)).view.host == "b"


def test_a_request_that_is_repeated_when_its_instance_is_seen_still_gets_the_same_answer() -> None:
    scheduled = Scheduled(host("a"))
    asked = demand(request_id="r-1", instance_name="job")
    first = scheduled.placed(asked)
    view = host("a", used=2, used_memory=2)
    members = {"default/job": Instance("job", Resources(2000, 2 * GIB))}
    scheduled.fleet.show(replace(view, allocation=replace(view.allocation, members=members)))
    again = scheduled.placed(asked)
    assert first.reservation is not None
    assert again.reservation == replace(first.reservation, instance="default/job")
    assert scheduled.reserved() == {}


def test_a_request_that_is_repeated_while_the_first_still_waits_claims_once() -> None:
    scheduled = Scheduled(host("a"))
    waiting: list[Deferred[None]] = []

    def refreshing() -> Deferred[None]:
        waiting.append(Deferred())
        return waiting[-1]

    scheduled.fleet.refreshing = refreshing
    answers: list[Placement | Refusal] = []
    for _ in range(2):
        asking = scheduled.scheduler.schedule(demand(request_id="r-1"))
        Deferred.fromCoroutine(asking).addCallback(answers.append)
    for each in reversed(waiting):
        each.callback(None)
    first, second = answers
    assert isinstance(first, Placement)
    assert isinstance(second, Placement)
    assert first.reservation == second.reservation
    assert scheduled.reserved() == {"a": 2000}


def test_a_request_that_is_repeated_while_the_first_takes_the_last_room_gets_its_answer() -> None:
    scheduled = Scheduled(host("a", cores=2))
    waiting: Deferred[None] = Deferred()
    scheduled.fleet.refreshing = lambda: waiting
    answers: list[Placement | Refusal] = []
    asking = scheduled.scheduler.schedule(demand(request_id="r-1"))
    Deferred.fromCoroutine(asking).addCallback(answers.append)
    scheduled.fleet.refreshing = lambda: None
    first = scheduled.placed(demand(request_id="r-1"))
    waiting.callback(None)
    (second,) = answers
    assert isinstance(second, Placement)
    assert second.reservation == first.reservation


def test_a_request_that_is_repeated_for_fewer_hosts_gets_its_answer_where_that_is_one_of_them() -> None:
    scheduled = Scheduled(host("a"), host("b", used=1), host("c", used=2))
    first = scheduled.placed(demand(request_id="r-1"))
    again = scheduled.placed(demand(request_id="r-1", targets=frozenset({"a", "c"})))
    assert (again.reservation, again.alternates) == (first.reservation, ("c",))


def test_a_request_that_is_repeated_when_its_host_is_gone_gets_its_answer() -> None:
    scheduled = Scheduled(host("a"))
    at_once(scheduled.ledger.reserve(demand(request_id="r-1"), lambda: [Candidate("b", Resources(9000, 9 * GIB))]))
    answer = scheduled.placed(demand(request_id="r-1"))
    assert (answer.view.host, answer.view.state) == ("b", State.UNREACHABLE)


@pytest.mark.parametrize(
    "other",
    [
        demand(3, 2, request_id="r-1"),
        demand(2, 3, request_id="r-1"),
        demand(request_id="r-1", instance_name="job"),
        demand(request_id="r-1", targets=frozenset({"b"})),
        demand(request_id="r-1", architecture="x86_64"),
        demand(request_id="r-1", pool=UBUNTU),
    ],
)
def test_the_key_of_a_request_that_lives_cannot_be_used_for_another_demand(other: Demand) -> None:
    scheduled = Scheduled(host("a"), host("b", used=1))
    scheduled.placed(demand(request_id="r-1"))
    with pytest.raises(RepeatedRequestError, match="'r-1' was used for another demand, which lives until it expires"):
        scheduled.ask(other)
    assert scheduled.reserved() == {"a": 2000}
    scheduled.clock.advance(LIFE)
    scheduled.placed(other)


def test_the_same_request_id_of_two_clients_is_two_requests() -> None:
    scheduled = Scheduled(host("a"), host("b", used=1))
    asked = {name: demand(request_id="r-1", client=name) for name in ("ci", "qa", None)}
    first = {name: scheduled.placed(each).reservation for name, each in asked.items()}
    assert len({each.id for each in first.values() if each is not None}) == 3
    again = {name: scheduled.placed(each).reservation for name, each in asked.items()}
    assert again == first
    assert [(each.client, each.request_id) for each in scheduled.living()] == [(name, "r-1") for name in asked]


def test_what_another_client_asked_for_under_a_request_id_does_not_matter() -> None:
    scheduled = Scheduled(host("a"))
    scheduled.placed(demand(request_id="r-1", client="ci"))
    scheduled.placed(demand(3, 2, request_id="r-1", client="qa"))
    with pytest.raises(RepeatedRequestError, match="'r-1' was used for another demand"):
        scheduled.placed(demand(3, 2, request_id="r-1", client="ci"))


def test_the_same_request_id_of_two_clients_is_two_requests_also_while_both_wait_for_hosts() -> None:
    scheduled = Scheduled(host("a"))
    gates: list[Deferred[None]] = []

    def wait() -> Deferred[None]:
        gates.append(Deferred())
        return gates[-1]

    scheduled.fleet.refreshing = wait
    answers: list[Placement | Refusal] = []
    for name in ("ci", "qa", "ci", "qa"):
        asking = scheduled.scheduler.schedule(demand(request_id="r-1", client=name))
        Deferred.fromCoroutine(asking).addCallback(answers.append)
    for gate in gates:
        gate.callback(None)
    made = [each.reservation for each in answers if isinstance(each, Placement)]
    assert [each.client for each in made if each is not None] == ["ci", "qa", "ci", "qa"]
    assert (made[0], made[1]) == (made[2], made[3])
    assert made[0] != made[1]


def test_the_key_of_a_request_whose_claim_was_given_back_claims_anew() -> None:
    scheduled = Scheduled(host("a"))
    first = scheduled.placed(demand(request_id="r-1")).reservation
    assert first is not None
    assert at_once(scheduled.ledger.release(first.id))
    second = scheduled.placed(demand(request_id="r-1")).reservation
    assert second is not None
    assert second.id != first.id


@pytest.mark.parametrize("lost", [1, 9])
def test_a_race_that_is_lost_is_ranked_again(lost: int) -> None:
    clock = Clock()
    ledger = Beaten(clock, lost)
    scheduled = Scheduled(host("a"), host("b", used=1), ledger=ledger, clock=clock)
    assert scheduled.placed().view.host == "a"
    assert [[each.host for each in candidates] for candidates in ledger.tried] == [["a", "b"]] * (lost + 1)
    assert len(scheduled.fleet.refreshed) == 1, "the hosts need not be asked again for it"


def test_a_race_that_is_always_lost_ends_in_a_refusal() -> None:
    class Hopeless(MemoryLedger):
        async def reserve(self, demand: Demand, rank: Rank) -> Reservation | None:
            return None

    clock = Clock()
    scheduled = Scheduled(host("a"), host("full", used=16), ledger=Hopeless(clock, LIFE), clock=clock)
    refusal = scheduled.refused()
    assert refusal.code is Code.NO_CAPACITY
    assert refusal.excluded.keys() == {"full"}, "the other one would fit, were it not for the others"


def test_what_another_replica_claims_meanwhile_is_ranked_anew() -> None:
    class Overtaken(MemoryLedger):
        async def reserve(self, demand: Demand, rank: Rank) -> Reservation | None:
            assert rank()[0].host == "a"
            full = Resources(16_000, 64 * GIB)
            assert await super().reserve(Demand(full), lambda: [Candidate("a", full)]) is not None
            return await super().reserve(demand, rank)

    clock = Clock()
    scheduled = Scheduled(host("a"), host("b", used=1), ledger=Overtaken(clock, LIFE), clock=clock)
    answer = scheduled.placed()
    assert (answer.view.host, answer.alternates) == ("b", ())


def test_a_request_that_another_replica_has_answered_for_another_demand_is_an_error() -> None:
    class Elsewhere(MemoryLedger):
        """Finds a request only when it reserves: it was made elsewhere in between."""

        def find(self, key: RequestKey) -> Reservation | None:
            return None

        async def reserve(self, demand: Demand, rank: Rank) -> Reservation | None:
            return replace(self.made, request_id=demand.request_id)

        made = Reservation("x", "a", Resources(1000, GIB), 0.0, LIFE, demand=demand(1, 1, request_id="r-1"))

    clock = Clock()
    scheduled = Scheduled(host("a"), ledger=Elsewhere(clock, LIFE), clock=clock)
    with pytest.raises(RepeatedRequestError):
        scheduled.ask(demand(request_id="r-1"))
    assert scheduled.placed(demand(1, 1, request_id="r-1")).reservation is not None


def test_a_ledger_is_told_what_a_host_has_beside_its_instances_claimed_or_not() -> None:
    clock = Clock()
    ledger = Beaten(clock, 0)
    view = stocked(host("a", used=3, used_memory=5), {UBUNTU: 2, Kind("large"): 1})
    scheduled = Scheduled(view, ledger=ledger, clock=clock)
    for _ in range(3):
        scheduled.placed(demand(pool=UBUNTU))
        assert ledger.tried.pop() == [Candidate("a", Resources(13_000, 59 * GIB), ready=2)]
    scheduled.placed(demand())
    assert ledger.tried.pop() == [Candidate("a", Resources(13_000, 59 * GIB), ready=0)]
