"""What a fleet needs to know before it starts: its hosts, how long it waits for them, how it counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lxdsched.limits import Unlimited
from lxdsched.tls import Identity, Trust

HTTPS_PORT = 443
"""Where a URL without a port leads."""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """One configured host. `host` is the configured string, byte for byte; `url` is where its API is (`https://...`).

    Without `trust` its certificate is trusted on first use. `over_commit_percent` applies to CPU; `reserve_memory`
    (bytes) is kept back from the machine's memory.
    """

    host: str
    url: str
    identity: Identity
    trust: Trust | None = None
    over_commit_percent: int = 100
    reserve_memory: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counting:
    """How instances are counted: which statuses (`Frozen`) are exempt, and what one without a limit counts as."""

    exempt: frozenset[str] = frozenset({"Frozen"})
    unlimited: Unlimited = field(default_factory=Unlimited)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a host is waited for, and how much it may say. Seconds, and bytes.

    `connect` bounds the TCP connection and `question` everything from there to the last byte of the listing. A host
    that failed is asked again after `probe_first`, doubled each time up to `probe_most`. `poll` is how often a good
    host is listed when no request does it, `capacity` how often its size is asked again, and `stale` for how long a
    host that answers but cannot list is still chosen from its last listing. A stream of events is asked for a sign of
    life every `ping`, and given up when nothing came for twice as long.
    """

    connect: float = 2.0
    question: float = 5.0
    probe_first: float = 1.0
    probe_most: float = 30.0
    poll: float = 30.0
    capacity: float = 300.0
    stale: float = 30.0
    ping: float = 5.0
    answer_size: int = 32 * 1024**2
