"""Whatever callers, hands and time do, what an answer has given away is not given away again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lxdsched.model import Demand, Kind, Resources
from lxdsched.strategies import BUILT_IN
from tests.promise.account import Answer
from tests.promise.truth import TrueHost, TrueInstance
from tests.promise.world import LIFE, World
from tests.support import GIB

SMALL = Resources(1000, 2 * GIB)
LARGE = Resources(2000, 3 * GIB)
POOLED = Resources(1000, 4 * GIB)
"""What is asked for. None looks like another."""

ODD = Resources(1500, 3 * GIB)
"""What is made by hand, which nobody asks for."""

KIND = Kind("pooled", "ubuntu")


def hosts() -> list[TrueHost]:
    return [
        TrueHost(name, Resources(cores * 1000, memory * GIB)) for name, cores, memory in (("a", 12, 48), ("b", 4, 16))
    ]


class Promise(RuleBasedStateMachine):
    """Everything that may happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(hosts())

    @initialize(data=st.data())
    def what_was_there_before(self, data: st.DataObject) -> None:
        for host in self.all_hosts():
            for _ in range(data.draw(st.integers(0, 2))):
                self.stock(host, frozen=True)
            if data.draw(st.booleans()):
                self.something_else(host)
            if data.draw(st.sampled_from([True, True, True, False])):
                self.world.tell(host)

    def teardown(self) -> None:
        for waiting in list(self.world.fleet.waiting):
            waiting.cancel()
        self.world.pass_time(LIFE)
        self.world.check()
        assert not self.world.clock.getDelayedCalls()
        assert not any(account.expected(self.world.now) for account in self.world.accounts.values())

    def all_hosts(self) -> list[TrueHost]:
        return list(self.world.fleet.hosts.values())

    def stock(self, host: TrueHost, *, frozen: bool) -> None:
        self.world.by_hand(host, TrueInstance(self.world.new_name(), POOLED, frozen=frozen, kind=KIND))

    def something_else(self, host: TrueHost) -> None:
        self.world.by_hand(host, TrueInstance(self.world.new_name(), ODD))

    def some_instance(
        self, data: st.DataObject, wanted: Callable[[TrueHost, TrueInstance], bool]
    ) -> tuple[TrueHost, TrueInstance] | None:
        found = [(host, each) for host in self.all_hosts() for each in host.instances if wanted(host, each)]
        return data.draw(st.sampled_from(found)) if found else None

    def some_answer(self, data: st.DataObject, answers: Iterable[Answer]) -> Answer:
        return data.draw(st.sampled_from(list(answers)))

    def awaited(self) -> list[Answer]:
        return [each for each in self.world.answers.values() if each.awaited(self.world.now)]

    # Callers

    @rule(
        size=st.sampled_from([SMALL, SMALL, LARGE]),
        named=st.booleans(),
        keyed=st.booleans(),
        meant=st.sampled_from([None, None, frozenset("a"), frozenset("b")]),
        strategy=st.sampled_from([None, *(each.name for each in BUILT_IN)]),
        at_once=st.booleans(),
        times=st.integers(1, 3),
    )
    def somebody_asks(
        self,
        size: Resources,
        named: bool,
        keyed: bool,
        meant: frozenset[str] | None,
        strategy: str | None,
        at_once: bool,
        times: int,
        pool: Kind | None = None,
    ) -> None:
        for _ in range(times):
            demand = Demand(
                size,
                targets=meant,
                pool=pool,
                instance_name=self.world.new_name() if named else None,
                request_id=self.world.new_name() if keyed else None,
            )
            self.world.ask(demand, strategy)
            if keyed and not named:
                self.world.ask(demand)  # impatiently: a second time while the first may still wait
        if at_once:
            for waiting in list(self.world.fleet.waiting):
                self.world.refresh(waiting)

    @rule(named=st.sampled_from([False, False, True]), at_once=st.booleans(), times=st.integers(1, 3))
    def somebody_asks_for_one_of_the_pool(self, named: bool, at_once: bool, times: int) -> None:
        self.somebody_asks(POOLED, named, False, None, None, at_once, times, KIND)

    @precondition(lambda self: self.world.fleet.waiting)
    @rule(data=st.data(), gives_up=st.sampled_from([False, False, False, True]))
    def a_request_has_waited_for_the_fleet(self, data: st.DataObject, gives_up: bool) -> None:
        waiting = data.draw(st.sampled_from(self.world.fleet.waiting))
        if gives_up:
            waiting.cancel()
        else:
            self.world.refresh(waiting)

    @precondition(lambda self: any(each.demand.request_id for each in self.world.answers.values()))
    @rule(data=st.data())
    def a_request_is_repeated(self, data: st.DataObject) -> None:
        keyed = [each for each in self.world.answers.values() if each.demand.request_id]
        answer = self.some_answer(data, keyed)
        # When the answer has ended, this is another request, for an instance of another name.
        name = answer.demand.instance_name and self.world.new_name()
        self.world.ask(answer.demand if answer.lives(self.world.now) else replace(answer.demand, instance_name=name))

    @precondition(lambda self: self.awaited())
    @rule(data=st.data(), times=st.sampled_from([1, 1, 2, 9]), heard=st.booleans())
    def an_answer_is_made_use_of(self, data: st.DataObject, times: int, heard: bool) -> None:
        for _ in range(times):
            if awaited := self.awaited():
                answer = self.some_answer(data, awaited)
                self.world.use(answer)
                if heard:
                    self.world.tell(self.world.fleet.hosts[answer.reservation.host])

    @precondition(lambda self: self.awaited())
    @rule(data=st.data())
    def an_answer_is_given_back(self, data: st.DataObject) -> None:
        self.world.give_back(self.some_answer(data, self.awaited()))

    # Hands

    @precondition(lambda self: any(not each.frozen for host in self.all_hosts() for each in host.instances))
    @rule(data=st.data(), times=st.sampled_from([1, 3]))
    def jobs_end(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            if chosen := self.some_instance(data, lambda _host, each: not each.frozen):
                self.world.delete(*chosen)

    @rule(name=st.sampled_from("ab"), frozen=st.booleans(), odd=st.booleans())
    def somebody_makes_an_instance_by_hand(self, name: str, frozen: bool, odd: bool) -> None:
        host = self.world.fleet.hosts[name]
        if odd and sum(each.size == ODD for each in host.instances) < 2:
            self.something_else(host)
        elif sum(each.size == POOLED for each in host.instances) < 3:
            self.stock(host, frozen=frozen)

    @rule(
        data=st.data(),
        deed=st.sampled_from(["freeze", "freeze", "thaw", "thaw", "thaw of the pool", "delete of the pool", "resize"]),
        heard=st.booleans(),
    )
    def somebody_has_a_hand_in_an_instance(self, data: st.DataObject, deed: str, heard: bool) -> None:
        wanted: Callable[[TrueHost, TrueInstance], bool] = {
            "freeze": lambda host, each: not each.frozen and (heard or self.was_shown(host, each)),
            "thaw": lambda _host, each: each.frozen and not each.ready,
            "resize": self.was_shown,
        }.get(deed, lambda _host, each: each.ready)
        chosen = self.some_instance(data, wanted)
        if chosen is None:
            return
        host, instance = chosen
        if deed == "freeze":
            self.world.freeze(instance)
        elif deed.startswith("thaw"):
            self.world.thaw(host, instance)
        elif deed.startswith("delete"):
            self.world.delete(host, instance)
        else:
            self.world.resize(host, instance, ODD)
        if heard:
            self.world.tell(host)

    @rule(data=st.data(), heard=st.booleans(), heard_again=st.booleans())
    def somebody_freezes_an_instance_for_a_moment(self, data: st.DataObject, heard: bool, heard_again: bool) -> None:
        if chosen := self.some_instance(data, lambda host, each: not each.frozen and self.was_shown(host, each)):
            host, instance = chosen
            self.world.freeze(instance)
            if heard:
                self.world.tell(host)
            self.world.thaw(host, instance)
            if heard_again:
                self.world.tell(host)

    def was_shown(self, host: TrueHost, instance: TrueInstance) -> bool:
        return instance in self.world.accounts[host.name].first_shown

    # Listings and time

    @rule(name=st.sampled_from("ab"), what=st.sampled_from(["is listed", "is listed", "is heard", "is silent"]))
    def a_host(self, name: str, what: str) -> None:
        host = self.world.fleet.hosts[name]
        match what:
            case "is listed":
                host.take_listing()
            case "is heard" if host.under_way:
                self.world.deliver(host)
            case "is silent" if host.shown:
                self.world.fleet.lose(host)

    @rule(name=st.sampled_from("ab"))
    def a_host_is_listed_and_heard_at_once(self, name: str) -> None:
        self.world.tell(self.world.fleet.hosts[name])

    @rule(seconds=st.sampled_from([1, 2, 4, 7, int(LIFE) - 1, int(LIFE)]))
    def time_passes(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @invariant()
    def the_promise_holds(self) -> None:
        self.world.check()


TestWhateverHappensThePromiseHolds = Promise.TestCase
TestWhateverHappensThePromiseHolds.settings = settings(max_examples=150, stateful_step_count=60)
