"""The values that travel between the parts: what is asked, what a host says, what is answered.

All of them are frozen. Quantities are integers everywhere: CPU in millicores (LXD knows hard caps of part of a
core), memory in bytes. They are converted at the edges only. Times are seconds of the injected clock, which
need not have anything to do with the time of day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lxdsched.repeats import RequestKey, key

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
class Kind:
    """A kind of pool instance, as shoes-lxd-multi labels them. In a demand, None stands for any."""

    resource_type: str | None = None
    image_alias: str | None = None

    def meets(self, other: Kind) -> bool:
        """Tell whether one instance could be of both kinds."""
        return (
            self.resource_type is None or other.resource_type is None or self.resource_type == other.resource_type
        ) and (self.image_alias is None or other.image_alias is None or self.image_alias == other.image_alias)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request asks for.

    `targets` None means any host; `architecture` is LXD's name (`x86_64`). A host with a ready pool instance of the
    kind `pool` is preferred. `instance_name` is what the caller will call the instance or its runner, `request_id` what
    it calls the request. `client` is its name, None without access control.
    """

    resources: Resources
    targets: frozenset[str] | None = None
    instance_type: InstanceType = InstanceType.CONTAINER
    architecture: str | None = None
    pool: Kind | None = None
    instance_name: str | None = None
    request_id: str | None = None
    client: str | None = None

    @property
    def key(self) -> RequestKey | None:
        """What the request is known by when it is repeated."""
        return key(self.client, self.request_id)


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
class Instance:
    """An instance that counts, and what it counts as.

    `runner` is the runner that it works for, `kind` what it was in shoes-lxd-multi's pool; None where it does not say.
    `unlimited` tells that it has no limit on CPU or on memory.
    """

    name: str
    resources: Resources
    unlimited: bool = False
    runner: str | None = None
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class Allocation:
    """What the instances that LXD lists on one host are entitled to, by their limits.

    `counted` instances make up `resources`; `exempt` ones (Frozen, by default) do not; `unlimited` of the counted
    ones have no limit on CPU or on memory. `doubts` says, per instance (`project/name`), what could not be read.
    `members` are the counted instances of which it is known what they are entitled to, by the same labels; `ready`
    counts the pool instances that wait for a job, by their kind.
    """

    resources: Resources = Resources()
    counted: int = 0
    exempt: int = 0
    unlimited: int = 0
    doubts: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Instance] = field(default_factory=dict)
    ready: Mapping[Kind, int] = field(default_factory=dict)

    @property
    def instances(self) -> int:
        """All instances on the host, counted or exempt."""
        return self.counted + self.exempt


class Phase(StrEnum):
    """Where a reservation stands, as `/reservations` names it."""

    PENDING = "pending"
    SEEN = "seen"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Capacity that an answer has claimed on a host, until LXD shows the instance there, or the time is up.

    Times are seconds of the ledger's clock. `pool` is the kind of pool instance that was promised, None when none was.
    `instance` is the label (`project/name`) of the instance that took the reservation over; from then on it claims
    nothing, and is only remembered. `alternates` are the other hosts that the answer to the `demand` named, `client` is
    the name of who was answered, None without access control.
    """

    id: str
    host: str
    resources: Resources
    created_at: float
    expires_at: float
    instance_name: str | None = None
    request_id: str | None = None
    pool: Kind | None = None
    alternates: tuple[str, ...] = ()
    instance: str | None = None
    demand: Demand | None = None
    client: str | None = None

    @property
    def key(self) -> RequestKey | None:
        """What the request is known by for which it was made."""
        return key(self.client, self.request_id)

    @property
    def phase(self) -> Phase:
        """Whether LXD shows the instance yet."""
        return Phase.PENDING if self.instance is None else Phase.SEEN


@dataclass(frozen=True, slots=True)
class Claims:
    """What the pending reservations of one host claim together: resources, and pool instances by their kinds."""

    resources: Resources = Resources()
    pools: tuple[Kind, ...] = ()


NO_CLAIMS = Claims()


def waiting(ready: Mapping[Kind, int], kind: Kind) -> int:
    """Count the ready pool instances that are of a kind."""
    return sum(count for each, count in ready.items() if each.meets(kind))


def promised(pools: Iterable[Kind], kind: Kind) -> int:
    """Count the promises that an instance of this kind may be meant by."""
    return sum(each.meets(kind) for each in pools)


@dataclass(frozen=True, slots=True)
class View:
    """What we know of one host at one moment.

    `host` is the configured string, its identity. `capacity` is None until the host has told it once. `observed_at`
    is when the instances were listed, None when never, and `asked_at` when that listing was asked for. `reason` says
    in a sentence why `state` is not plainly good. `claimed`, allocated or reserved, is not to be given away again;
    `free` may be, and is negative on a host that carries more than its capacity.
    """

    host: str
    state: State
    reason: str | None = None
    capacity: Capacity | None = None
    allocation: Allocation = Allocation()
    claims: Claims = NO_CLAIMS
    observed_at: float | None = None
    asked_at: float = 0.0
    claimed: Resources = field(init=False)
    free: Resources = field(init=False)

    def __post_init__(self) -> None:
        # Worked out once: a request looks at them on many hosts.
        claimed = self.allocation.resources + self.claims.resources
        object.__setattr__(self, "claimed", claimed)
        object.__setattr__(self, "free", (self.capacity.usable if self.capacity else Resources()) - claimed)

    @property
    def reserved(self) -> Resources:
        """What answers have claimed whose instances LXD does not show yet."""
        return self.claims.resources

    @property
    def name(self) -> str | None:
        """LXD's `server_name`, None until the host has told it."""
        return self.capacity.name if self.capacity else None

    def ready(self, kind: Kind) -> int:
        """Count the pool instances of a kind that wait for a job and are promised to none."""
        return waiting(self.allocation.ready, kind) - promised(self.claims.pools, kind)

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
    """The answer: the chosen host's view, the next best in order, and whether a pool instance waits there.

    `reservation` is None for a decision that was only tried; then `excluded` says why some of the `hosts` that were
    looked at do not fit.
    """

    view: View
    alternates: tuple[str, ...]
    pooled: bool = False
    reservation: Reservation | None = None
    hosts: int = 0
    excluded: Mapping[str, Exclusion] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer when no host was chosen: the code, and the exclusion of every host asked about."""

    code: Code
    excluded: Mapping[str, Exclusion]
