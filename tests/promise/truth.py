"""A truthful fleet, simulated: what is really on the hosts, and what they say about it, sooner or later.

A host's listings are snapshots of what is on it. They arrive late, but in order, and hold nothing that was not so when
they were taken. Nothing here knows of reservations.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from twisted.internet.defer import Deferred

from lxdsched.model import Allocation, Capacity, Instance, InstanceType, Kind, Resources, State, View


@dataclass(eq=False)
class TrueInstance:
    """An instance as it really is. It counts unless it is frozen."""

    name: str
    size: Resources
    frozen: bool = False
    runner: str | None = None
    kind: Kind | None = None

    @property
    def label(self) -> str:
        return f"default/{self.name}"

    @property
    def ready(self) -> bool:
        """Whether it waits in the pool for a job."""
        return self.frozen and self.runner is None and self.kind is not None


@dataclass(frozen=True)
class Listing:
    """What was on a host when it was listed: the instances that counted, and their sizes then."""

    allocation: Allocation
    counted: Mapping[TrueInstance, Resources] = field(default_factory=dict)


def total(sizes: Iterable[Resources]) -> Resources:
    """Add sizes up."""
    cpu = memory = 0
    for size in sizes:
        cpu += size.cpu
        memory += size.memory
    return Resources(cpu, memory)


class TrueHost:
    """A host, and its listings on their way: `shown` is the last one that has arrived."""

    def __init__(self, name: str, size: Resources) -> None:
        self.name = name
        self.size = size
        self.instances: dict[TrueInstance, None] = {}
        self.under_way: deque[Listing] = deque()
        self.shown: Listing | None = None
        self.capacity = Capacity(
            name=name,
            total=size,
            usable=size,
            cpus=frozenset(range(size.cpu // 1000)),
            architectures=frozenset({"x86_64"}),
            instance_types=frozenset({InstanceType.CONTAINER}),
        )

    def counted(self) -> Iterable[TrueInstance]:
        return (each for each in self.instances if not each.frozen)

    def load(self) -> Resources:
        """Add up what really counts."""
        return total(each.size for each in self.counted())

    def take_listing(self) -> None:
        """Have the host listed as it is now; the listing is on its way."""
        counted = {each: each.size for each in self.counted()}
        members = {each.label: Instance(each.name, each.size, runner=each.runner, kind=each.kind) for each in counted}
        allocation = Allocation(
            total(counted.values()),
            counted=len(counted),
            exempt=len(self.instances) - len(counted),
            members=members,
            ready=Counter(each.kind for each in self.instances if each.ready and each.kind is not None),
        )
        self.under_way.append(Listing(allocation, counted))

    def shows(self, instance: TrueInstance) -> bool:
        """Tell whether an instance counts in what was shown last."""
        return self.shown is not None and instance in self.shown.counted

    def ready(self, kind: Kind) -> int:
        """Count the pool instances of a kind that waited for a job when the host was last shown."""
        return 0 if self.shown is None else self.shown.allocation.ready.get(kind, 0)

    def settled(self, instance: TrueInstance) -> bool:
        """Tell whether an instance that counts does so in what was shown last and in all that is under way."""
        return self.shows(instance) and all(instance in listing.counted for listing in self.under_way)


class SimulatedFleet:
    """Shows what the hosts have listed, when a test has a listing arrive. To refresh takes until a test ends it."""

    def __init__(self, hosts: Iterable[TrueHost], now: Callable[[], float]) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.waiting: list[Deferred[None]] = []
        self.patient = True
        self._now = now
        self._views = {name: View(name, State.UNREACHABLE, "it has not been asked yet") for name in self.hosts}
        self._show: Callable[[View], None] = lambda _view: None

    def watch(self, show: Callable[[View], None], gone: Callable[[str], None]) -> None:
        self._show = show
        for view in self._views.values():
            show(view)

    async def refresh(self, targets: Collection[str] | None = None) -> None:
        if self.patient:
            waiting: Deferred[None] = Deferred()
            self.waiting.append(waiting)
            try:
                await waiting
            finally:
                self.waiting.remove(waiting)

    def deliver(self, host: TrueHost) -> None:
        """Have the oldest listing that is under way arrive."""
        listing = host.shown = host.under_way.popleft()
        before = self._views[host.name]
        # A listing that says nothing new is no new allocation, as in the real fleet.
        same = before.observed_at is not None and before.allocation == listing.allocation
        self._put(
            replace(
                before,
                state=State.LIVE,
                reason=None,
                capacity=host.capacity,
                allocation=before.allocation if same else listing.allocation,
                observed_at=self._now(),
            )
        )

    def lose(self, host: TrueHost) -> None:
        """Have a host fall silent, until its next listing arrives."""
        self._put(replace(self._views[host.name], state=State.UNREACHABLE, reason="it is silent"))

    def _put(self, view: View) -> None:
        self._views[view.host] = view
        self._show(view)
