"""The values that travel between the parts: what is asked, what a host says, what is answered.

All of them are frozen. Quantities are integers everywhere: CPU in millicores (LXD knows hard caps of part of a
core), memory in bytes. They are converted at the edges only. Times are seconds of the injected clock, which
need not have anything to do with the time of day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MILLICORES = 1000
"""Millicores in one core."""


class State(StrEnum):
    """How a host stands, as `/hosts` names it."""

    LIVE = "live"
    POLLED = "polled"
    STALE = "stale"
    UNREACHABLE = "unreachable"
    UNTRUSTED = "untrusted"
    RESTRICTED = "restricted"
    DOUBTFUL = "doubtful"
    DRAINED = "drained"


class InstanceType(StrEnum):
    """LXD's two kinds of instance, spelled as its API spells them."""

    CONTAINER = "container"
    VIRTUAL_MACHINE = "virtual-machine"


class Reason(StrEnum):
    """Why a host was left out of a decision, as the answer's `hosts` names it."""

    NOT_CONFIGURED = "not_configured"
    UNREACHABLE = "unreachable"
    UNTRUSTED = "untrusted"
    RESTRICTED = "restricted"
    STALE = "stale"
    DRAINED = "drained"
    WRONG_ARCHITECTURE = "wrong_architecture"
    WRONG_INSTANCE_TYPE = "wrong_instance_type"
    INSUFFICIENT_CPU = "insufficient_cpu"
    INSUFFICIENT_MEMORY = "insufficient_memory"


class Code(StrEnum):
    """Why nothing was placed, as the answer's `code` names it."""

    NEVER_FITS = "never_fits"
    NO_CAPACITY = "no_capacity"
    NO_HOST_REACHABLE = "no_host_reachable"


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of both quantities: CPU in millicores, memory in bytes. Either may be negative when it is a balance."""

    cpu: int = 0
    memory: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: Resources) -> Resources:
        return Resources(self.cpu - other.cpu, self.memory - other.memory)

    def covers(self, other: Resources) -> bool:
        """Tell whether this is at least `other` on CPU and on memory."""
        return self.cpu >= other.cpu and self.memory >= other.memory


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request asks for. `targets` None means any host; `architecture` is LXD's name (`x86_64`)."""

    resources: Resources
    targets: frozenset[str] | None = None
    instance_type: InstanceType = InstanceType.CONTAINER
    architecture: str | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one host offers, as its own API tells it.

    `total` is what the machine has; `usable` what may be given away: `total` over-committed (CPU) and less the
    reserve (memory). `cpus` are the numbers of the threads that instances can use. `name` is LXD's `server_name`.
    """

    name: str
    total: Resources
    usable: Resources
    cpus: frozenset[int]
    architectures: frozenset[str]
    instance_types: frozenset[InstanceType]
    clustered: bool = False


@dataclass(frozen=True, slots=True)
class Allocation:
    """What the instances that LXD lists on one host are entitled to, by their limits.

    `counted` instances make up `resources`; `exempt` ones (Frozen, by default) do not; `unlimited` of the counted
    ones have no limit on CPU or on memory. `doubts` says, per instance (`project/name`), what could not be read.
    """

    resources: Resources = Resources()
    counted: int = 0
    exempt: int = 0
    unlimited: int = 0
    doubts: Mapping[str, str] = field(default_factory=dict)

    @property
    def instances(self) -> int:
        """All instances on the host, counted or exempt."""
        return self.counted + self.exempt


@dataclass(frozen=True, slots=True)
class View:
    """What we know of one host at one moment.

    `host` is the configured string, its identity. `capacity` is None until the host has told it once. `observed_at`
    is when the instances were listed, None when never. `reason` says in a sentence why `state` is not plainly good.
    """

    host: str
    state: State
    reason: str | None = None
    capacity: Capacity | None = None
    allocation: Allocation = Allocation()
    reserved: Resources = Resources()
    observed_at: float | None = None

    @property
    def name(self) -> str | None:
        """LXD's `server_name`, None until the host has told it."""
        return self.capacity.name if self.capacity else None

    @property
    def claimed(self) -> Resources:
        """What is not to be given away again: allocated and reserved."""
        return self.allocation.resources + self.reserved

    @property
    def free(self) -> Resources:
        """What may still be given away; negative on a host that carries more than its capacity."""
        return (self.capacity.usable if self.capacity else Resources()) - self.claimed

    @property
    def schedulable(self) -> bool:
        """Whether this host may be chosen at all, whatever the demand."""
        return self.capacity is not None and self.state in SCHEDULABLE


SCHEDULABLE = frozenset({State.LIVE, State.POLLED, State.DOUBTFUL, State.STALE})
"""A stale view is one that may still be used: one grown too old is `unreachable`."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Why one host was left out, for programs and for people."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Placement:
    """The answer: the chosen host's view, the next best in order, how many fit, and why the others do not."""

    view: View
    fitting: int
    alternates: tuple[str, ...]
    excluded: Mapping[str, Exclusion]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer when no host was chosen: the code, and the exclusion of every host asked about."""

    code: Code
    excluded: Mapping[str, Exclusion]
