"""What a host offers and what its instances take of it, worked out from what its API says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice

from lxdsched.fleet.listing import OddRow
from lxdsched.fleet.payloads import MOST_CPUS, MOST_NAME, MOST_TEXT, Cpu, Environment, Hardware, PayloadError, Row
from lxdsched.fleet.settings import Counting, HostSettings
from lxdsched.fleet.work import Work
from lxdsched.limits import MOST_MEMORY, LimitError, instance_share
from lxdsched.model import MILLICORES, Allocation, Capacity, Instance, InstanceType, Kind, Resources

MOST_DOUBTS = 1000
"""Doubtful instances of a host that are kept by name."""
MOST_KINDS = 100
"""Kinds of pool instances of a host that are told apart."""

FROZEN = "Frozen"
"""The status of a pool instance that waits for a job."""
RUNNER_NAME = "user.myshoes_runner_name"
RESOURCE_TYPE = "user.myshoes_resource_type"
IMAGE_ALIAS = "user.myshoes_image_alias"
"""What shoes-lxd-multi writes on its instances."""
_NO_KIND = Kind()
_NOWHERE = frozenset({"", "none"})
"""What stands for the member where an instance is, where there is none."""


def capacity(environment: Environment, hardware: Hardware, settings: HostSettings) -> Capacity:
    """Work out what a host offers. PayloadError when it claims to have nothing."""
    cpus = _usable(hardware.cpu)
    total = Resources(len(cpus) * MILLICORES, hardware.memory.total)
    if total.cpu <= 0 or not 0 < total.memory <= MOST_MEMORY:
        raise PayloadError(f"it claims to have {len(cpus)} CPUs and {hardware.memory.total} bytes of memory")
    return Capacity(
        name=environment.server_name,
        total=total,
        usable=Resources(total.cpu * settings.over_commit_percent // 100, total.memory - settings.reserve_memory),
        cpus=cpus,
        architectures=frozenset(environment.architectures),
        instance_types=_kinds(environment),
        clustered=environment.server_clustered,
    )


def _usable(cpu: Cpu) -> frozenset[int]:
    threads = [thread for socket in cpu.sockets or [] for core in socket.cores or [] for thread in core.threads]
    if len(threads) > MOST_CPUS:
        raise PayloadError(f"it claims to have {len(threads)} CPUs")
    if threads:
        return frozenset(thread.id for thread in threads if thread.online and not thread.isolated)
    if not 0 <= cpu.total <= MOST_CPUS:
        raise PayloadError(f"it claims to have {cpu.total} CPUs")
    return frozenset(range(cpu.total))


def _kinds(environment: Environment) -> frozenset[InstanceType]:
    if environment.instance_types is not None:
        known = {kind.value for kind in InstanceType}
        return frozenset(InstanceType(kind) for kind in environment.instance_types if kind in known)
    drivers = {name.strip() for name in environment.driver.split("|")}
    kinds = {"lxc": InstanceType.CONTAINER, "qemu": InstanceType.VIRTUAL_MACHINE}
    return frozenset(kind for driver, kind in kinds.items() if driver in drivers)


def allocating(
    rows: list[Row],
    odd: Iterable[OddRow],
    on: Capacity,
    counting: Counting,
    known: Mapping[str, Instance],
) -> Work[Allocation]:
    """Sum up what the rows of one host are entitled to, row by row.

    `odd` are the rows that did not decode. A doubtful instance counts as what it was `known` to be, else as one
    without limits. Whatever is listed of it more than once, an instance counts once.
    """
    exempt = 0
    members: dict[str, Instance] = {}
    ready: Counter[Kind] = Counter()
    doubtful: dict[str, str] = {}
    seen: set[str] = set()
    for row in rows:
        yield
        label = f"{row.project}/{row.name}"
        if on.clustered and row.location != on.name:
            if row.location in _NOWHERE:
                doubtful[label] = "it is listed without its member of the cluster"
            continue
        if label in seen:
            doubtful[label] = "it is listed more than once"
            continue
        seen.add(label)
        if row.status in counting.exempt:
            exempt += 1
            if row.status == FROZEN and (kind := _ready(row)) is not None:
                ready[kind] += 1
            continue
        try:
            members[label] = _instance(row, on, counting)
        except LimitError as error:
            doubtful[label] = str(error)[:MOST_TEXT]
    for strange in odd:
        if on.clustered and strange.location not in {on.name, None}:
            continue
        if strange.status in counting.exempt:
            exempt += 1
        else:
            doubtful[strange.label] = strange.doubt
    members.update((label, known[label]) for label in doubtful if label in known)
    unheard = len(doubtful.keys() - members.keys())
    return Allocation(
        Resources(
            sum(each.resources.cpu for each in members.values()) + unheard * counting.unlimited.cpu,
            min(
                sum(each.resources.memory for each in members.values()) + unheard * counting.unlimited.memory,
                MOST_MEMORY,
            ),
        ),
        counted=len(members) + unheard,
        exempt=exempt,
        unlimited=sum(each.unlimited for each in members.values()) + unheard,
        doubts=dict(islice(doubtful.items(), MOST_DOUBTS)),
        members=members,
        ready=dict(islice(ready.items(), MOST_KINDS)),
    )


def _instance(row: Row, on: Capacity, counting: Counting) -> Instance:
    if row.expanded_config is None:
        raise LimitError("it is listed without its config")
    share = instance_share(row.expanded_config, _type(row), on, counting.unlimited)
    runner = _label(row.expanded_config, RUNNER_NAME) or None
    return Instance(row.name, share.resources, share.unlimited, runner, _kind(row.expanded_config))


def _ready(row: Row) -> Kind | None:
    """Say which kind of job a pool instance waits for; None when it is none, or has one."""
    config = row.expanded_config
    return None if config is None or RUNNER_NAME in config else _kind(config)


def _kind(config: Mapping[str, str]) -> Kind | None:
    kind = Kind(_label(config, RESOURCE_TYPE), _label(config, IMAGE_ALIAS))
    return None if kind == _NO_KIND else kind


def _label(config: Mapping[str, str], key: str) -> str | None:
    label = config.get(key)
    return None if label is None or len(label) > MOST_NAME else label


def _type(row: Row) -> InstanceType:
    try:
        return InstanceType(row.type)
    except ValueError:
        raise LimitError(f"{row.type!r} is no type of instance") from None
