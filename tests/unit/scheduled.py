"""A scheduler over a fleet that shows what a test wants it to, and a ledger that others may be faster with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lxdsched.ledger.book import Candidate, Rank
from lxdsched.ledger.memory import MemoryLedger
from lxdsched.model import Demand, Placement, Refusal, Reservation, View
from lxdsched.scheduler import Scheduler
from lxdsched.strategies import BUILT_IN
from tests.ledger.bench import at_once
from tests.unit.test_placement import demand

LIFE = 120.0


class Shown:
    """A fleet that is shown, and that answers at once or when it is told to."""

    def __init__(self, *views: View) -> None:
        self._views = views
        self.show: Callable[[View], None]
        self.refreshed: list[Collection[str] | None] = []
        self.refreshing: Callable[[], Deferred[None] | None] = lambda: None

    def watch(self, show: Callable[[View], None], gone: Callable[[str], None]) -> None:
        self.show = show
        for view in self._views:
            show(view)

    async def refresh(self, targets: Collection[str] | None = None) -> None:
        self.refreshed.append(targets)
        if (waiting := self.refreshing()) is not None:
            await waiting


class Beaten(MemoryLedger):
    """A ledger in which another replica is faster, so often."""

    def __init__(self, clock: Clock, times: int) -> None:
        super().__init__(clock, LIFE)
        self.times = times
        self.tried: list[Sequence[Candidate]] = []

    async def reserve(self, demand: Demand, rank: Rank) -> Reservation | None:
        def seen() -> Sequence[Candidate]:
            self.tried.append(rank())
            return self.tried[-1]

        for _ in range(self.times):
            seen()
        return await super().reserve(demand, seen)


class Scheduled:
    """A scheduler over a fleet that is shown."""

    def __init__(self, *views: View, ledger: MemoryLedger | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.fleet = Shown(*views)
        self.ledger = ledger or MemoryLedger(self.clock, LIFE)
        strategies = {each.name: each for each in BUILT_IN[:4]}
        self.scheduler = Scheduler(self.fleet, self.ledger, BUILT_IN[0], strategies, Random(1))

    def ask(
        self, asked: Demand | None = None, strategy: str | None = None, *, dry_run: bool = False
    ) -> Placement | Refusal:
        return at_once(self.scheduler.schedule(asked or demand(), strategy, dry_run=dry_run))

    def placed(self, asked: Demand | None = None, strategy: str | None = None, *, dry_run: bool = False) -> Placement:
        answer = self.ask(asked, strategy, dry_run=dry_run)
        assert isinstance(answer, Placement), answer
        return answer

    def refused(self, asked: Demand | None = None) -> Refusal:
        answer = self.ask(asked)
        assert isinstance(answer, Refusal), answer
        return answer

    def reserved(self) -> dict[str, int]:
        return {view.host: view.reserved.cpu for view in self.scheduler.snapshot() if view.reserved.cpu}

    def living(self) -> Sequence[Reservation]:
        return at_once(self.ledger.reservations())
