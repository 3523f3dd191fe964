"""What a ledger promises: capacity is claimed once, for a time, and given back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lxdsched.ledger.book import Candidate
from lxdsched.model import NO_CLAIMS, Claims, Instance, Kind, Phase, Resources
from tests.ledger.bench import LIFE, ROOMY, Bench, Caller
from tests.support import GIB, demand

UBUNTU = Kind("small", "ubuntu")
DEBIAN = Kind("small", "debian")

TWO = Resources(2000, 2 * GIB)


def room(host: str, cores: int, memory: int = 64, ready: int = 0) -> Candidate:
    return Candidate(host, Resources(cores * 1000, memory * GIB), ready)


def test_an_empty_ledger_claims_nothing_and_waits_for_nothing(bench: Bench, caller: Caller) -> None:
    assert bench.ledger.claims("a") == NO_CLAIMS
    assert list(caller.all()) == []
    assert bench.idle()


def test_a_reservation_says_what_was_claimed_where_for_whom_and_until_when(bench: Bench, caller: Caller) -> None:
    asked = demand(2, 2 * GIB, instance_name="job-1", request_id="r-1")
    made = caller.claim(asked, "a")
    assert (made.host, made.resources, made.instance_name, made.request_id) == ("a", TWO, "job-1", "r-1")
    assert made.demand == asked
    assert (made.pool, made.instance, made.phase) == (None, None, Phase.PENDING)
    assert made.created_at == pytest.approx(bench.seconds(), abs=1)
    assert made.expires_at - made.created_at == LIFE
    assert list(caller.all()) == [made]


def test_the_hosts_that_a_demand_has_named_are_not_kept(caller: Caller) -> None:
    made = caller.claim(demand(targets=frozenset({"a", "b", "nowhere"})), "a")
    assert made.demand == demand()


def test_no_two_reservations_have_the_same_id(caller: Caller) -> None:
    assert len({caller.claim(demand()).id for _ in range(50)}) == 50


def test_what_is_claimed_on_a_host_adds_up_and_stays_on_that_host(bench: Bench, caller: Caller) -> None:
    caller.claim(demand(2, 2 * GIB), "a")
    caller.claim(demand(1, 5 * GIB), "a")
    caller.claim(demand(4, 1 * GIB), "b")
    assert caller.claimed("a") == Resources(3000, 7 * GIB)
    assert caller.claimed("b") == Resources(4000, GIB)
    assert bench.ledger.claims("c") == NO_CLAIMS


@pytest.mark.parametrize(
    ("cores", "memory", "fits"), [(4, 4, True), (3, 64, False), (64, 3, False), (0, 0, False), (-1, 64, False)]
)
def test_a_demand_is_claimed_only_where_it_fits_beside_all_that_is_claimed(
    caller: Caller, cores: int, memory: int, fits: bool
) -> None:
    caller.claim(demand(2, 2 * GIB), "a")
    made = caller.reserve(demand(2, 2 * GIB), room("a", cores, memory))
    assert (made is not None) is fits
    assert caller.claimed("a") == (TWO + TWO if fits else TWO)


def test_the_first_candidate_with_room_is_taken(caller: Caller) -> None:
    caller.claim(demand(2, 2 * GIB), "b")
    made = caller.claim(demand(2, 2 * GIB), room("a", 1), room("b", 3), room("c", 2), room("d", 64))
    assert made.host == "c"
    assert (caller.claimed("a"), caller.claimed("b"), caller.claimed("d")) == (Resources(), TWO, Resources())


def test_the_alternates_are_the_candidates_that_come_after(caller: Caller) -> None:
    assert caller.claim(demand(), "a", "b", "c").alternates == ("b", "c")
    assert caller.claim(demand(4, GIB), room("a", 1), room("b", 9), room("c", 9)).alternates == ("c",)
    assert caller.claim(demand(), "a").alternates == ()


def test_a_demand_without_room_anywhere_claims_nothing(bench: Bench, caller: Caller) -> None:
    asked = demand(2, 2 * GIB, request_id="r-1")
    assert caller.reserve(asked, room("a", 1), room("b", 9, memory=1)) is None
    assert caller.reserve(asked) is None
    assert caller.find("r-1") is None
    assert list(caller.all()) == []
    assert bench.idle()


def test_a_repeated_request_gets_its_reservation_and_claims_nothing(caller: Caller) -> None:
    asked = demand(2, 2 * GIB, request_id="r-1")
    made = caller.claim(asked, "a", "b")
    assert caller.claim(asked, "b") == made
    assert caller.reserve(asked) == made, "where it fits nowhere any more, too"
    assert caller.find("r-1") == made
    assert (caller.claimed("a"), caller.claimed("b")) == (TWO, Resources())


def test_requests_without_a_key_are_never_taken_for_the_same(caller: Caller) -> None:
    assert caller.claim(demand()).id != caller.claim(demand()).id
    assert caller.claim(demand(request_id="r-1")).id != caller.claim(demand(request_id="r-2")).id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ci", "r-1"), ("qa", "r-1")),
        (("ci", "r-1"), (None, "r-1")),
        (("ci", "r-1"), (None, '["ci","r-1"]')),
        (("ci", "r-1"), (None, '[null,"r-1"]')),
        ((None, "r-1"), (None, '[null,"r-1"]')),
        ((None, "["), (None, '[null,"["]')),
        (("ci", "r-1"), ("ci", '["ci","r-1"]')),
        (("a", "b c"), ("a b", "c")),
        (("a", 'b","c'), ('a","b', "c")),
        (("a", "\0b"), ("a\0", "b")),
    ],
)
def test_a_request_id_is_its_clients_own_whatever_it_looks_like(
    bench: Bench, caller: Caller, one: tuple[str | None, str], other: tuple[str | None, str]
) -> None:
    asked = {key: demand(2, 2 * GIB, client=key[0], request_id=key[1]) for key in (one, other)}
    made = {key: caller.claim(each) for key, each in asked.items()}
    assert [(each.client, each.request_id) for each in caller.all()] == [one, other]
    assert made[one].id != made[other].id
    assert {key: caller.claim(each) for key, each in asked.items()} == made, "repeated, each gets its own"
    assert caller.release(made[one])
    assert caller.find(one[1], one[0]) is None
    assert caller.find(other[1], other[0]) == made[other]
    assert caller.claim(asked[one]).id != made[one].id
    bench.advance(LIFE)
    assert bench.idle()


def test_who_has_claimed_is_known_without_a_key_too(caller: Caller) -> None:
    caller.claim(demand(client="ci"))
    assert [(each.client, each.request_id) for each in caller.all()] == [("ci", None)]


def test_an_unknown_request_is_not_found(caller: Caller) -> None:
    caller.claim(demand(), "a")
    caller.claim(demand(request_id="r-1"), "a")
    assert caller.find("r-2") is None
    assert caller.find("") is None


def test_a_reservation_that_is_given_back_claims_nothing_and_is_gone(bench: Bench, caller: Caller) -> None:
    first, second = caller.claim(demand(2, 2 * GIB, request_id="r-1")), caller.claim(demand(1, GIB))
    assert caller.release(first)
    assert caller.claimed() == second.resources
    assert list(caller.all()) == [second]
    assert caller.find("r-1") is None
    assert not caller.release(first), "there is none any more"
    assert caller.release(second)
    assert bench.idle()


def test_nothing_is_given_back_by_an_id_that_nobody_has(caller: Caller) -> None:
    made = caller.claim(demand())
    assert not caller.bench.wait(caller.bench.ledger.release("nobody"))
    assert list(caller.all()) == [made]


def test_a_reservation_claims_until_its_time_is_up_and_no_longer(bench: Bench, caller: Caller) -> None:
    caller.claim(demand(2, 2 * GIB, request_id="r-1"))
    bench.advance(LIFE - 1)
    assert caller.claimed() == TWO
    assert caller.find("r-1") is not None
    bench.advance(1)
    assert bench.ledger.claims("a") == NO_CLAIMS
    assert caller.find("r-1") is None
    assert list(caller.all()) == []
    assert bench.idle()


def test_every_reservation_has_its_own_time(bench: Bench, caller: Caller) -> None:
    made = []
    for _ in range(3):
        made.append(caller.claim(demand()))
        bench.advance(LIFE / 4)
    for left in (2, 1, 0):
        bench.advance(LIFE / 4)
        assert list(caller.all()) == made[len(made) - left :]
    assert bench.idle()


def test_time_goes_on_for_the_others_when_the_oldest_is_given_back(bench: Bench, caller: Caller) -> None:
    oldest = caller.claim(demand())
    bench.advance(10)
    caller.claim(demand())
    assert caller.release(oldest)
    bench.advance(LIFE - 1)
    assert len(caller.all()) == 1
    bench.advance(1)
    assert not caller.all()
    assert bench.idle()


def test_the_key_of_a_request_is_free_again_when_its_reservation_has_ended(bench: Bench, caller: Caller) -> None:
    asked = demand(request_id="r-1")
    first = caller.claim(asked)
    bench.advance(LIFE)
    second = caller.claim(asked)
    assert second.id != first.id
    assert caller.release(second)
    third = caller.claim(asked)
    assert third.id != second.id
    bench.advance(LIFE / 2)
    assert caller.find("r-1") == third, "no earlier one's end ends it"


def test_seen_it_claims_nothing_but_is_remembered_until_its_time_is_up(bench: Bench, caller: Caller) -> None:
    asked = demand(2, 2 * GIB, request_id="r-1")
    made = caller.claim(asked)
    caller.list(one=Instance("one", TWO))
    (seen,) = caller.all()
    assert (seen.id, seen.phase, seen.instance, seen.expires_at) == (made.id, Phase.SEEN, "one", made.expires_at)
    assert bench.ledger.claims("a") == NO_CLAIMS
    assert caller.claim(asked) == seen
    assert bench.ledger.claims("a") == NO_CLAIMS
    bench.advance(LIFE)
    assert caller.find("r-1") is None
    assert bench.idle()


def test_seen_it_can_still_be_given_back(bench: Bench, caller: Caller) -> None:
    made = caller.claim(demand(2, 2 * GIB))
    other = caller.claim(demand(1, GIB))
    caller.list(one=Instance("one", TWO))
    assert caller.release(made)
    assert list(caller.all()) == [other]
    assert caller.claimed() == other.resources


def test_reservations_are_listed_oldest_first_pending_and_seen(bench: Bench, caller: Caller) -> None:
    made = []
    for cores in (1, 2, 3):
        made.append(caller.claim(demand(cores)).id)
        bench.advance(1)
    caller.list(two=Instance("two", Resources(2000, GIB)))
    assert [(each.id, each.phase) for each in caller.all()] == list(
        zip(made, (Phase.PENDING, Phase.SEEN, Phase.PENDING), strict=True)
    )


@pytest.mark.parametrize(
    ("ready", "asked", "promised"),
    [
        (0, [UBUNTU], [False]),
        (1, [UBUNTU, UBUNTU], [True, False]),
        (2, [UBUNTU, UBUNTU, UBUNTU], [True, True, False]),
        (1, [UBUNTU, DEBIAN], [True, True]),  # each of its own kind
        (1, [UBUNTU, Kind("small")], [True, False]),  # it may be the same instance
        (1, [None], [False]),
    ],
)
def test_a_pool_instance_is_promised_while_there_is_one_that_is_not(
    caller: Caller, ready: int, asked: list[Kind | None], promised: list[bool]
) -> None:
    made = [caller.claim(demand(pool=kind), Candidate("a", ROOMY, ready)) for kind in asked]
    assert [each.pool for each in made] == [kind if kept else None for kind, kept in zip(asked, promised, strict=True)]
    pools = caller.bench.ledger.claims("a").pools
    assert sorted(pools, key=str) == sorted((each.pool for each in made if each.pool), key=str)


def test_a_promise_of_a_pool_instance_ends_with_its_reservation(bench: Bench, caller: Caller) -> None:
    stocked = Candidate("a", ROOMY, 1)
    made = caller.claim(demand(pool=UBUNTU), stocked)
    assert caller.release(made)
    assert caller.claim(demand(pool=UBUNTU), stocked).pool == UBUNTU
    bench.advance(LIFE)
    assert caller.claim(demand(pool=UBUNTU), stocked).pool == UBUNTU
    caller.list(pooled=Instance("pooled", Resources(1000, GIB), runner="runner", kind=UBUNTU))
    assert bench.ledger.claims("a") == NO_CLAIMS


def test_whoever_watches_is_told_of_the_host_whenever_its_claims_change(bench: Bench, caller: Caller) -> None:
    told: list[tuple[str, Claims]] = []
    bench.ledger.watch(lambda host: told.append((host, bench.ledger.claims(host))))

    def news() -> list[tuple[str, int]]:
        found = [(host, claims.resources.cpu) for host, claims in told]
        told.clear()
        return found

    first = caller.claim(demand(2, 2 * GIB, request_id="r-1"), "a")
    assert news() == [("a", 2000)]
    caller.claim(demand(1, GIB), "b")
    assert news() == [("b", 1000)]
    caller.claim(demand(2, 2 * GIB, request_id="r-1"), "b")
    assert caller.reserve(demand(), room("a", 1)) is None
    assert news() == [], "nothing has changed"
    caller.list("b", one=Instance("one", Resources(1000, GIB)))
    assert news() == [("b", 0)]
    assert caller.release(first)
    assert news() == [("a", 0)]
    caller.claim(demand(3), "a")
    news()
    bench.advance(LIFE)
    assert news() == [("a", 0)], "by itself, at the end of its time; what was seen had claimed nothing"


def test_a_stopped_ledger_leaves_no_timer(make_bench: Callable[[], Bench]) -> None:
    bench = make_bench()
    Caller(bench).claim(demand())
    assert not bench.idle()
    bench.close()
    assert bench.idle()
