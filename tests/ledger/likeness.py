"""The simplest ledger there could be: a list, read from its beginning each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lxdsched.ledger.book import Candidate
from lxdsched.model import Claims, Demand, Instance, Kind, Resources, promised
from tests.ledger.bench import LIFE


@dataclass
class Entry:
    """A reservation as it should be."""

    id: str
    host: str
    demand: Demand
    ends: float
    pool: Kind | None
    taker: str | None = None


class Likeness:
    """What a ledger should say after the same operations."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def pending(self, host: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.host == host and entry.taker is None]

    def claims(self, host: str) -> Claims:
        pending = self.pending(host)
        sizes = [entry.demand.resources for entry in pending]
        return Claims(
            Resources(sum(size.cpu for size in sizes), sum(size.memory for size in sizes)),
            tuple(entry.pool for entry in pending if entry.pool is not None),
        )

    def known(self, request_id: str | None, client: str | None) -> Entry | None:
        if request_id is None:
            return None
        asked = (request_id, client)
        found = (entry for entry in self.entries if (entry.demand.request_id, entry.demand.client) == asked)
        return next(found, None)

    def first_with_room(self, demand: Demand, candidates: Sequence[Candidate]) -> Candidate | None:
        fitting = (
            each for each in candidates if (each.room - self.claims(each.host).resources).covers(demand.resources)
        )
        return next(fitting, None)

    def claim(self, made: str, demand: Demand, candidate: Candidate, now: float) -> Entry:
        pools = self.claims(candidate.host).pools
        stocked = demand.pool is not None and candidate.ready > promised(pools, demand.pool)
        entry = Entry(made, candidate.host, demand, now + LIFE, demand.pool if stocked else None)
        self.entries.append(entry)
        return entry

    def expire(self, now: float) -> None:
        self.entries = [entry for entry in self.entries if entry.ends > now]

    def release(self, entry: Entry) -> None:
        self.entries.remove(entry)

    def comes_to_count(self, host: str, label: str, instance: Instance, *, looks: bool) -> None:
        """Have an instance that did not count before take over whatever it is meant by."""
        meant = self._by_name(host, instance)
        if meant is None and looks and not any(entry.taker == label for entry in self._on(host)):
            meant = self._by_looks(host, instance)
        if meant is not None:
            meant.taker = label

    def comes_to_a_runner(self, host: str, label: str, instance: Instance, *, laid_in: bool) -> None:
        """Have an instance that counted before take over what is meant by its new name, if it is free to.

        One that was `laid_in`, of the pool and nobody's until now, may also be known by its looks.
        """
        if not any(entry.taker == label for entry in self._on(host)):
            self.comes_to_count(host, label, instance, looks=laid_in)

    def _on(self, host: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.host == host]

    def _by_name(self, host: str, instance: Instance) -> Entry | None:
        names = {instance.name, instance.runner} - {None}
        return next((entry for entry in self.pending(host) if entry.demand.instance_name in names), None)

    def _by_looks(self, host: str, instance: Instance) -> Entry | None:
        nameless = [entry for entry in self.pending(host) if entry.demand.instance_name is None]
        liked = [(rank, age) for age, entry in enumerate(nameless) if (rank := _rank(entry, instance)) is not None]
        return nameless[min(liked)[1]] if liked else None


def _rank(entry: Entry, instance: Instance) -> int | None:
    """Say how well the looks of an instance go with a reservation: the least is the best, None is not at all."""
    if instance.kind is not None and instance.runner is None:
        return None
    asked, counted = entry.demand.resources, instance.resources
    alike = asked.cpu == counted.cpu and abs(asked.memory - counted.memory) <= max(asked.memory, counted.memory) / 8
    if entry.pool is not None and instance.kind is not None and entry.pool.meets(instance.kind):
        return 0 if alike else 1
    return 2 + 2 * (entry.pool is not None) + (asked.memory != counted.memory) if alike else None
