"""A scheduler with its ledger over a simulated fleet, and the people and programs that make use of them."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from lxdsched.ledger.memory import MemoryLedger
from lxdsched.model import Demand, Phase, Placement, Refusal, Resources
from lxdsched.scheduler import RepeatedRequestError, Scheduler
from lxdsched.strategies import BUILT_IN
from tests.ledger.bench import at_once
from tests.promise.account import Answer, HostAccount
from tests.promise.truth import SimulatedFleet, TrueHost, TrueInstance, total

LIFE = 20.0
"""Seconds for which an answer's capacity is kept."""

MOMENT = 0.5
"""Seconds between the last listing before a claim ends and its end."""


class World:
    """Everything there is. Each method is something that may happen; `check` holds it against the promise."""

    def __init__(self, hosts: Iterable[TrueHost]) -> None:
        self.clock = Clock()
        self.ledger = MemoryLedger(self.clock, LIFE)
        self.fleet = SimulatedFleet(hosts, self.clock.seconds)
        strategies = {each.name: each for each in BUILT_IN}
        self.scheduler = Scheduler(self.fleet, self.ledger, BUILT_IN[0], strategies, Random(1))
        self.accounts = {name: HostAccount(host) for name, host in self.fleet.hosts.items()}
        self.answers: dict[str, Answer] = {}
        self._failures: list[Failure] = []
        self._named = 0

    @property
    def now(self) -> float:
        return self.clock.seconds()

    def new_name(self) -> str:
        self._named += 1
        return f"i{self._named}"

    # Callers

    def ask(self, demand: Demand, strategy: str | None = None) -> None:
        """Ask where an instance shall go; the answer comes when the fleet is refreshed."""
        asking = Deferred.fromCoroutine(self._ask(demand, strategy))
        asking.addErrback(_gone).addErrback(self._failures.append)
        self._fail()

    def refresh(self, waiting: Deferred[None]) -> None:
        """Have the fleet be up to date for one request, as far as its hosts have listed anything."""
        waiting.callback(None)
        self._fail()

    def _fail(self) -> None:
        for failure in self._failures:
            failure.raiseException()

    async def _ask(self, demand: Demand, strategy: str | None) -> None:
        try:
            answer = await self.scheduler.schedule(demand, strategy)
        except RepeatedRequestError:
            known = [each for each in self.answers.values() if each.lives(self.now)]
            assert any(each.demand.request_id == demand.request_id and each.demand != demand for each in known)
            return
        if isinstance(answer, Refusal):
            self._refused(demand)
        else:
            self._answered(demand, answer)

    def _answered(self, demand: Demand, placement: Placement) -> None:
        made = placement.reservation
        assert made is not None
        if (known := self.answers.get(made.id)) is not None:
            assert demand.request_id is not None
            assert known.lives(self.now), "it was repeated after its end"
            assert (known.demand.request_id, known.reservation.host) == (demand.request_id, made.host)
            return
        for each in self.answers.values():
            repeated = demand.request_id is not None and each.demand.request_id == demand.request_id
            assert not (repeated and each.lives(self.now)), "a repeated request has claimed twice"
        answer = self.answers[made.id] = Answer(demand, made)
        self.accounts[made.host].answered(answer, self.now)

    def _refused(self, demand: Demand) -> None:
        for view in self.scheduler.snapshot():
            meant = demand.targets is None or view.host in demand.targets
            assert not (meant and view.schedulable and view.free.covers(demand.resources)), "there was room"

    def use(self, answer: Answer) -> None:
        """Make the instance of an answer, as its caller does; one from the pool where that was promised."""
        host = self.fleet.hosts[answer.reservation.host]
        name = answer.demand.instance_name
        if answer.reservation.pool is None:
            # A name is the instance's own, or its runner's.
            by_runner = name is not None and len(name) % 2 == 0
            instance = TrueInstance(
                self.new_name() if name is None or by_runner else name,
                answer.demand.resources,
                runner=name if by_runner else None,
            )
            host.instances[instance] = None
        else:
            ready = [each for each in host.instances if each.ready and each.kind == answer.reservation.pool]
            if not ready:
                return  # somebody has taken it away by hand
            instance = ready[0]
            instance.runner, instance.frozen = name or "somebody", False
        answer.made = instance

    def give_back(self, answer: Answer) -> None:
        """Say that no instance will be made from an answer."""
        answer.given_back = True
        assert at_once(self.ledger.release(answer.reservation.id))

    # By hand

    def by_hand(self, host: TrueHost, *instances: TrueInstance) -> None:
        """Put instances on a host without asking."""
        host.instances.update(dict.fromkeys(instances))
        self.accounts[host.name].excuse(self.now)

    def resize(self, host: TrueHost, instance: TrueInstance, size: Resources) -> None:
        instance.size = size
        self.accounts[host.name].excuse(self.now)

    def freeze(self, instance: TrueInstance) -> None:
        instance.frozen = True

    def thaw(self, host: TrueHost, instance: TrueInstance) -> bool:
        """Thaw an instance, unless it would be taken for one that an answer waits for; say whether it was."""
        account = self.accounts[host.name]
        instance.frozen = False
        heir = account.heirs.get(instance)
        told_apart = instance.runner is None and instance.kind is not None  # nobody's
        if not (told_apart or host.settled(instance) or self._may_be_told_apart(account, instance, heir)):
            instance.frozen = True
            return False
        account.excuse(self.now)
        return True

    def _may_be_told_apart(self, account: HostAccount, instance: TrueInstance, heir: Answer | None) -> bool:
        if heir is not None:
            if heir.lives(self.now):
                return True  # it is remembered which it was
        elif (answer := account.answer_of(instance)) is None or answer.lives(self.now):
            return True  # its own claim waits for it yet; or it was never an answer's, and looks like none
        if account.awaits_one_like(instance, self.now):
            return False
        # Whatever is asked for next finds it on the list.
        self.tell(account.host)
        return True

    def delete(self, host: TrueHost, instance: TrueInstance) -> None:
        del host.instances[instance]

    # Listings and time

    def deliver(self, host: TrueHost) -> None:
        listing = host.under_way[0]
        self.accounts[host.name].shown(listing, self.now)
        self.fleet.deliver(host)

    def tell(self, host: TrueHost) -> None:
        """Have a listing of a host as it is now arrive."""
        host.take_listing()
        while host.under_way:
            self.deliver(host)

    def pass_time(self, seconds: float) -> None:
        """Let time pass; what must have been shown for the promise to hold, is."""
        end = self.now + seconds
        while (due := self._next_due()) is not None and due[0] <= end:
            self.clock.advance(max(due[0] - MOMENT - self.now, 0))
            self.tell(due[1])
        self.clock.advance(end - self.now)

    def _next_due(self) -> tuple[float, TrueHost] | None:
        found = [
            (due, account.host)
            for account in self.accounts.values()
            for each in account.host.instances
            if (due := account.must_be_shown_by(each, self.now)) is not None
        ]
        return min(found, key=lambda each: each[0], default=None)

    # The promise

    def check(self) -> None:
        """Hold everything against the promise."""
        pending = [each for each in at_once(self.ledger.reservations()) if each.phase is Phase.PENDING]
        for view in self.scheduler.snapshot():
            account = self.accounts[view.host]
            account.check(self.now)
            expected = account.expected(self.now)
            assert [each for each in pending if each.host == view.host] == expected
            assert view.reserved == total(each.resources for each in expected)
            assert view.claims.pools == tuple(each.pool for each in expected if each.pool)
            listed = account.host.shown.allocation.resources if account.host.shown else Resources()
            assert view.claimed == listed + view.reserved, "a claim is counted beside its own instance"


def _gone(failure: Failure) -> None:
    failure.trap(CancelledError)
