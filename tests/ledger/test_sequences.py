"""Whatever the sequence of operations, a ledger says the same as the simplest one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lxdsched.ledger.book import Candidate
from lxdsched.model import Claims, Demand, Instance, Kind, Phase, Resources
from tests.ledger.bench import LIFE, Bench, Caller
from tests.ledger.likeness import Likeness
from tests.support import GIB

HOSTS = ("a", "b", "c")
REQUESTS = ("r-1", "r-2", '["ci","r-1"]')
CLIENTS = ("ci", None)

sizes = st.builds(
    Resources,
    st.sampled_from([1000, 2000]),
    st.sampled_from([GIB, 2_000_000_000, 2 * GIB, 4 * GIB]),  # the second and the third are alike
)
names = st.sampled_from(["job-1", "job-2", "job-3"])
kinds = st.builds(Kind, st.sampled_from(["small", None]), st.sampled_from(["ubuntu", "debian"]))
demands = st.builds(
    Demand,
    sizes,
    pool=st.none() | kinds,
    instance_name=st.none() | names,
    request_id=st.none() | st.sampled_from(REQUESTS),
    client=st.sampled_from(CLIENTS),
)
candidates = st.builds(
    Candidate,
    st.sampled_from(HOSTS),
    st.builds(Resources, st.integers(-1, 8).map(lambda cores: cores * 1000), st.just(64 * GIB)),
    st.integers(0, 2),
)
candidate_lists = st.lists(candidates, min_size=1, max_size=3, unique_by=lambda each: each.host)
strangers = st.builds(
    Instance, st.sampled_from(["x", "job-1", "job-2"]), sizes, runner=st.none() | names, kind=st.none() | kinds
)


class Sequences(RuleBasedStateMachine):
    """A ledger and its likeness, side by side."""

    def __init__(self, make_bench: Callable[[], Bench]) -> None:
        super().__init__()
        self.bench = make_bench()
        self.caller = Caller(self.bench)
        self.ledger = self.bench.ledger
        self.likeness = Likeness()
        self.labels = 0
        self.listed: dict[str, dict[str, Instance] | None] = dict.fromkeys(HOSTS)
        self.gone: dict[tuple[str, str], Instance] = {}
        self.told: set[str] = set()
        self.shown: dict[str, Claims] = {host: Claims() for host in HOSTS}
        self.ended: list[str] = []
        self.ledger.watch(self.told.add)

    def teardown(self) -> None:
        self.bench.close()

    @initialize()
    def some_hosts_have_been_looked_at(self) -> None:
        self.sight("a", {})
        self.sight("b", {})  # and "c" has not

    def sight(self, host: str, now: dict[str, Instance]) -> None:
        self.caller.look(host, now, self.listed[host])
        self.listed[host] = now

    # What callers do

    @rule(demand=demands, offered=candidate_lists)
    def reserve(self, demand: Demand, offered: list[Candidate]) -> None:
        known = self.likeness.known(demand.request_id, demand.client)
        first = self.likeness.first_with_room(demand, offered)
        made = self.caller.reserve(demand, *offered)
        if known is not None:
            assert made is not None
            assert made.id == known.id, "a repeated request claims nothing"
        elif first is None:
            assert made is None
        else:
            assert made is not None
            assert made.host == first.host
            entry = self.likeness.claim(made.id, demand, first, self.bench.seconds())
            assert (made.pool, made.resources) == (entry.pool, demand.resources)
            assert first.room.covers(self.ledger.claims(first.host).resources), "more was claimed than there is"

    @precondition(lambda self: self.likeness.entries)
    @rule(data=st.data(), offered=candidate_lists)
    def repeat(self, data: st.DataObject, offered: list[Candidate]) -> None:
        entry = data.draw(st.sampled_from(self.likeness.entries))
        self.reserve(entry.demand, offered)

    @precondition(lambda self: self.likeness.entries)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.likeness.entries))
        assert self.bench.wait(self.ledger.release(entry.id))
        self.likeness.release(entry)
        self.ended.append(entry.id)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        assert not self.bench.wait(self.ledger.release(data.draw(st.sampled_from(self.ended))))

    @rule(seconds=st.sampled_from([1, 20, int(LIFE) - 1, int(LIFE)]))
    def time_passes(self, seconds: int) -> None:
        before = {host: self.likeness.claims(host) for host in HOSTS}
        alive = {entry.id for entry in self.likeness.entries}
        self.bench.advance(seconds)
        told = set(self.told)  # by itself, before anybody has asked
        self.likeness.expire(self.bench.seconds())
        self.ended += alive - {entry.id for entry in self.likeness.entries}
        assert told == {host for host in HOSTS if self.likeness.claims(host) != before[host]}

    # What hosts list

    def appear(self, host: str, instance: Instance, label: str | None = None) -> None:
        if label is None:
            self.labels += 1
            label = f"default/i{self.labels}"
        before = self.listed[host]
        self.sight(host, {**(before or {}), label: instance})
        self.likeness.comes_to_count(host, label, instance, looks=before is not None)

    @precondition(lambda self: any(entry.taker is None for entry in self.likeness.entries))
    @rule(data=st.data(), drift=st.sampled_from([0, 0, 0, -16, 10, 12]), runner=st.booleans(), kind=st.none() | kinds)
    def an_instance_appears_that_was_asked_for(
        self, data: st.DataObject, drift: int, runner: bool, kind: Kind | None
    ) -> None:
        """It has the size, or one that is alike; the name, where there is one; and the kind that was promised."""
        entry = data.draw(st.sampled_from([entry for entry in self.likeness.entries if entry.taker is None]))
        name, size = entry.demand.instance_name, entry.demand.resources
        memory = size.memory + (size.memory // drift if drift else 0)
        known_as = f"i{self.labels}" if runner or name is None else name
        working_for = (name or "somebody") if runner or entry.pool else None
        self.appear(
            entry.host,
            Instance(
                known_as, replace(size, memory=memory), runner=working_for, kind=entry.pool and (kind or entry.pool)
            ),
        )

    @rule(host=st.sampled_from(HOSTS), instance=strangers)
    def any_instance_appears(self, host: str, instance: Instance) -> None:
        self.appear(host, instance)

    @precondition(lambda self: any(self.listed.values()))
    @rule(data=st.data())
    def an_instance_goes(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from([host for host in HOSTS if self.listed[host]]))
        now = dict(self.listed[host] or {})
        label = data.draw(st.sampled_from(sorted(now)))
        self.gone[host, label] = now.pop(label)
        self.sight(host, now)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def an_instance_comes_back(self, data: st.DataObject) -> None:
        host, label = data.draw(st.sampled_from(sorted(self.gone)))
        self.appear(host, self.gone.pop((host, label)), label)

    @precondition(lambda self: any(self.listed.values()))
    @rule(data=st.data())
    def an_instance_comes_to_a_runner(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from([host for host in HOSTS if self.listed[host]]))
        meant = [entry.demand.instance_name for entry in self.likeness.pending(host) if entry.demand.instance_name]
        runner = data.draw(st.sampled_from([*meant, "somebody"]))
        now = dict(self.listed[host] or {})
        label = data.draw(st.sampled_from(sorted(now)))
        before = now[label]
        if before.runner != runner:
            now[label] = replace(before, runner=runner)
            self.sight(host, now)
            laid_in = before.kind is not None and before.runner is None
            self.likeness.comes_to_a_runner(host, label, now[label], laid_in=laid_in)

    @rule(host=st.sampled_from(HOSTS), size=sizes)
    def a_listing_without_news(self, host: str, size: Resources) -> None:
        """Nothing new is there, though all have another size now."""
        if (before := self.listed[host]) is not None:
            self.sight(host, {label: replace(each, resources=size) for label, each in before.items()})

    # What always holds

    @invariant()
    def claims_are_what_is_pending(self) -> None:
        pending = [each for each in self.caller.all() if each.phase is Phase.PENDING]
        for host in HOSTS:
            claims, expected = self.ledger.claims(host), self.likeness.claims(host)
            assert claims.resources == expected.resources
            assert sorted(claims.pools, key=str) == sorted(expected.pools, key=str)
            assert claims.resources.cpu == sum(each.resources.cpu for each in pending if each.host == host)

    @invariant()
    def who_watches_was_told_of_the_hosts_whose_claims_have_changed_and_of_no_other(self) -> None:
        now = {host: self.ledger.claims(host) for host in HOSTS}
        assert self.told == {host for host in HOSTS if now[host] != self.shown[host]}
        self.shown = now
        self.told.clear()

    @invariant()
    def each_that_lives_is_listed_once_oldest_first_and_those_taken_over_are_seen(self) -> None:
        listed = [(each.id, each.phase is Phase.SEEN, each.instance) for each in self.caller.all()]
        expected = [(each.id, each.taker is not None, each.taker) for each in self.likeness.entries]
        assert listed == expected

    @invariant()
    def each_is_shown_as_it_was_asked_for_and_by_whom(self) -> None:
        listed = [(each.request_id, each.client) for each in self.caller.all()]
        assert listed == [(each.demand.request_id, each.demand.client) for each in self.likeness.entries]

    @invariant()
    def a_request_is_known_as_long_as_its_reservation_lives(self) -> None:
        for request_id, client in product(REQUESTS, CLIENTS):
            found, known = self.caller.find(request_id, client), self.likeness.known(request_id, client)
            assert (found and found.id) == (known and known.id)

    @invariant()
    def nothing_is_waited_for_when_nothing_lives(self) -> None:
        assert self.likeness.entries or self.bench.idle()


def test_whatever_the_sequence_a_ledger_says_what_the_simplest_one_would(make_bench: Callable[[], Bench]) -> None:
    class OnThisBench(Sequences):
        def __init__(self) -> None:
            super().__init__(make_bench)

    run_state_machine_as_test(OnThisBench, settings=settings(max_examples=100, stateful_step_count=40))
