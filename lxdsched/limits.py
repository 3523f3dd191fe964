"""LXD's grammar of limits, turned into millicores and bytes.

LXD stores `limits.*` as the strings that were typed and reads them only when an instance starts, on the host where
it starts. What a string is worth therefore depends on the host: a count beyond its threads, `0`, or pins that do not
exist there all mean every CPU. Source: LXD's own option documentation and its behaviour on 5.0.2.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lxdsched.model import MILLICORES, Capacity, InstanceType, Resources
from lxdsched.quoting import quoted

VM_DEFAULT_CPU = 1 * MILLICORES
"""Millicores of a virtual machine without `limits.cpu`."""
VM_DEFAULT_MEMORY = 1024**3
"""Bytes of a virtual machine without `limits.memory`."""

MOST_MEMORY = 2**60
"""Bytes that no machine has, and more than which nothing counts as: an exbibyte."""
MOST_PINS = 8192
"""Characters that a `limits.cpu` may have; pins of a machine with 1,000 threads have half as many."""

SUFFIXES = {"": 1, "B": 1}
SUFFIXES |= {f"{letter}B": 1000**power for power, letter in enumerate("kMGTPE", 1)}
SUFFIXES |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGTPE", 1)}
"""What LXD's suffixes of sizes stand for, in bytes."""

# [0-9] and not \d, which also matches the digits of other scripts; \Z and not $, which lets a newline follow.
_SIZE = re.compile(r"([0-9]{1,19})([A-Za-z]*)\Z")
_PERCENT = re.compile(r"([0-9]{1,9})%\Z")
_COUNT = re.compile(r"[0-9]{1,9}\Z")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?\Z")
_TOPOLOGY = re.compile(r"(sockets|cores|threads)=([0-9]{1,9})\Z")
_SOFT = re.compile(r"-?[0-9]{1,9}%\Z")
_ALLOWANCE = re.compile(r"([0-9]{1,9})(?:ms)?/([0-9]{1,9})(?:ms)?\Z")


class LimitError(ValueError):
    """A limit that LXD itself could not apply. The message names the key's value and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Unlimited:
    """What an instance without a limit counts as: CPU in millicores, memory in bytes. The default is nothing."""

    cpu: int = 0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """What one instance is entitled to on its host, and whether a limit is missing (`unlimited`)."""

    resources: Resources
    unlimited: bool = False


def parse_size(text: str) -> int:
    """Read a size in LXD's grammar (`2GiB`, `500MB`, `1024`), in bytes. LimitError when it is not one.

    The suffixes are case-sensitive, and fractions do not exist.
    """
    match = _SIZE.match(text)
    factor = SUFFIXES.get(match[2]) if match else None
    if match is None or factor is None:
        raise LimitError(f"{quoted(text)} is not a size such as 2GiB or 500MB")
    return int(match[1]) * factor


def memory_share(value: str, host_memory: int) -> int:
    """Read a `limits.memory` value, in bytes. LimitError when it cannot be read.

    A percentage is taken of `host_memory` (bytes, `memory.total` of `/1.0/resources`). LXD takes it of MemTotal,
    which is a little smaller, so this never counts less than LXD grants. It is rounded up.
    """
    percent = _PERCENT.match(value)
    size = -(-host_memory * int(percent[1]) // 100) if percent else parse_size(value)
    if size == 0:
        raise LimitError(f"{quoted(value)} leaves no memory at all")
    return min(size, MOST_MEMORY)


def cpu_share(value: str, cpus: frozenset[int]) -> int:
    """Read a `limits.cpu` value on a host whose usable threads are `cpus`, in millicores. LimitError when unreadable.

    A count is a number of CPUs; anything with a comma or a dash pins a set of them; `sockets=,cores=,threads=` is the
    form of Incus' virtual machines.
    """
    if len(value) > MOST_PINS:
        raise LimitError(f"{value[:20]!r}... has more than {MOST_PINS} characters")
    if _COUNT.match(value):
        count = int(value)
    elif "=" in value:
        count = _topology(value)
    else:
        count = _existing(_ranges(value), cpus)
    every = len(cpus)
    return (min(count, every) if count else every) * MILLICORES


def allowance_share(value: str) -> int | None:
    """Read a `limits.cpu.allowance`, in millicores; None for a soft share (`50%`), which caps nothing.

    A hard allowance (`25ms/100ms`) is rounded up to a whole millicore. LimitError when it cannot be read.
    """
    if _SOFT.match(value):
        return None
    match = _ALLOWANCE.match(value)
    quota, period = (int(match[1]), int(match[2])) if match else (0, 0)
    if not quota or not period:
        raise LimitError(f"{quoted(value)} is neither a percentage nor a quota such as 25ms/100ms")
    return -(-quota * MILLICORES // period)


def instance_share(config: Mapping[str, str], kind: InstanceType, capacity: Capacity, unlimited: Unlimited) -> Share:
    """Work out what an instance with this expanded `config` is entitled to on this host.

    `config` is LXD's `expanded_config`, so that limits from profiles are in it. LimitError when one of its limits
    cannot be read; the message begins with the key.
    """
    virtual = kind is InstanceType.VIRTUAL_MACHINE
    cpu = _read(config, "limits.cpu", lambda value: cpu_share(value, capacity.cpus))
    memory = _read(config, "limits.memory", lambda value: memory_share(value, capacity.total.memory))
    if virtual:
        cpu = VM_DEFAULT_CPU if cpu is None else cpu
        memory = VM_DEFAULT_MEMORY if memory is None else memory
    else:
        hard = _read(config, "limits.cpu.allowance", allowance_share)
        if hard is not None:
            cpu = min(hard, len(capacity.cpus) * MILLICORES if cpu is None else cpu)
    return Share(
        Resources(
            unlimited.cpu if cpu is None else cpu,
            unlimited.memory if memory is None else memory,
        ),
        unlimited=cpu is None or memory is None,
    )


def _read(config: Mapping[str, str], key: str, read: Callable[[str], int | None]) -> int | None:
    value = config.get(key)
    if not value:
        return None
    try:
        return read(value)
    except LimitError as error:
        raise LimitError(f"{key}: {error}") from None


def _topology(value: str) -> int:
    count, seen = 1, set()
    for part in value.split(","):
        match = _TOPOLOGY.match(part)
        if match is None or match[1] in seen:
            raise LimitError(f"{quoted(value)} is not a topology such as sockets=2,cores=4,threads=2")
        seen.add(match[1])
        count *= int(match[2])
    return count


def _ranges(value: str) -> list[tuple[int, int]]:
    ranges = []
    for part in value.split(","):
        match = _RANGE.match(part)
        if match is None:
            raise LimitError(f"{quoted(value)} is neither a count nor a set of CPUs such as 0-3 or 1,3,5")
        first = int(match[1])
        ranges.append((first, int(match[2]) if match[2] else first))
    return ranges


def _existing(ranges: Iterable[tuple[int, int]], cpus: Collection[int]) -> int:
    """Count the CPUs that are in one of the ranges."""
    apart: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if apart and first <= apart[-1][1] + 1:
            apart[-1] = apart[-1][0], max(last, apart[-1][1])
        elif first <= last:
            apart.append((first, last))
    if sum(last - first + 1 for first, last in apart) <= len(cpus):
        return sum(cpu in cpus for first, last in apart for cpu in range(first, last + 1))
    return sum(_within(apart, cpu) for cpu in cpus)


def _within(apart: Sequence[tuple[int, int]], cpu: int) -> bool:
    at = bisect_right(apart, cpu, key=_begin)
    return at > 0 and cpu <= apart[at - 1][1]


def _begin(span: tuple[int, int]) -> int:
    return span[0]
