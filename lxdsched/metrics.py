"""What Prometheus asks for: counted as it happens, or looked up when it asks.

Nothing here has a label for each host: a fleet may have thousands, and `/hosts` shows them.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from lxdsched import __version__
from lxdsched.certificates import OurCertificate
from lxdsched.listener.crowd import Crowd, Full
from lxdsched.model import MILLICORES, State, View

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Ledger(Protocol):
    """What is shown of a ledger."""

    @property
    def degraded(self) -> bool:
        """Whether what other replicas claim is not known at the moment."""


class Metrics:
    """The metrics of one daemon. `snapshot` says what is known of the hosts, without asking any.

    `certificates` are those that are in use, `crowds` the connections of clients.
    """

    def __init__(
        self,
        snapshot: Callable[[], Sequence[View]],
        ledger: Ledger,
        certificates: Callable[[], Sequence[OurCertificate]] = tuple,
        crowds: Sequence[Crowd] = (),
    ) -> None:
        self._registry = CollectorRegistry()
        self._decisions = Counter(
            "lxdsched_decisions", "Answers to requests for a place, by outcome.", ["outcome"], registry=self._registry
        )
        self._seconds = Histogram(
            "lxdsched_decision_seconds",
            "Seconds from a request for a place to its answer.",
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._registry.register(_Standing(snapshot, ledger))
        self._errors = Counter(
            "lxdsched_errors",
            "Answers to any request that were errors, by their code.",
            ["code"],
            registry=self._registry,
        )
        self._registry.register(_Ends(certificates))
        self._registry.register(_Traffic(crowds))

    def decided(self, outcome: str, seconds: float) -> None:
        """Count an answer to a request for a place: `placed`, `dry_run`, or the code of why not."""
        self._decisions.labels(outcome).inc()
        self._seconds.observe(seconds)

    def failed(self, code: str) -> None:
        """Count an answer that was an error."""
        self._errors.labels(code).inc()

    def render(self) -> bytes:
        """Write all of them in Prometheus' text format."""
        return generate_latest(self._registry)


class _Standing(Collector):
    """Looks up how things stand."""

    def __init__(self, snapshot: Callable[[], Sequence[View]], ledger: Ledger) -> None:
        self._snapshot = snapshot
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        views = self._snapshot()
        yield InfoMetricFamily("lxdsched", "The running version.", {"version": __version__})
        yield GaugeMetricFamily(
            "lxdsched_ledger_degraded",
            "1 while reservations should be shared with other replicas and are not.",
            float(self._ledger.degraded),
        )
        states = Tally(view.state for view in views)
        hosts = GaugeMetricFamily("lxdsched_hosts", "Hosts, by how they stand.", labels=["state"])
        for state in State:
            hosts.add_metric([state.value], states[state])
        yield hosts
        cpu = GaugeMetricFamily("lxdsched_cpu_cores", "Cores of all hosts that may be chosen.", labels=["kind"])
        memory = GaugeMetricFamily("lxdsched_memory_bytes", "Memory of all hosts that may be chosen.", labels=["kind"])
        chosen = [(view, view.capacity.usable) for view in views if view.capacity is not None and view.schedulable]
        for kind, amounts in (
            ("capacity", [usable for _, usable in chosen]),
            ("allocated", [view.allocation.resources for view, _ in chosen]),
            ("reserved", [view.reserved for view, _ in chosen]),
        ):
            cpu.add_metric([kind], sum(amount.cpu for amount in amounts) / MILLICORES)
            memory.add_metric([kind], sum(amount.memory for amount in amounts))
        yield cpu
        yield memory


class _Ends(Collector):
    """Looks up when certificates end."""

    def __init__(self, certificates: Callable[[], Sequence[OurCertificate]]) -> None:
        self._certificates = certificates

    def collect(self) -> Iterator[Metric]:
        ends = GaugeMetricFamily(
            "lxdsched_certificate_expires_timestamp_seconds",
            "When a certificate that is in use ends, in seconds since 1970.",
            labels=["use", "file"],
        )
        for each in self._certificates():
            ends.add_metric([each.use, each.file], each.expires.timestamp())
        yield ends


class _Traffic(Collector):
    """Looks up how many clients there are."""

    def __init__(self, crowds: Sequence[Crowd]) -> None:
        self._crowds = crowds

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "lxdsched_connections", "Connections of clients.", sum(crowd.connections for crowd in self._crowds)
        )
        dropped = CounterMetricFamily(
            "lxdsched_connections_dropped", "Connections dropped for others or not let in, by limit.", labels=["limit"]
        )
        for limit in Full:
            dropped.add_metric([limit.value], sum(crowd.turned_away[limit] for crowd in self._crowds))
        yield dropped
