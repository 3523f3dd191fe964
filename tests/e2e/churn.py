"""Instances that come and go on real hosts as the scheduler says, and a strict account of what it may say.

The account knows only what clients know. A claim *may* hold capacity from the moment its request is sent until its
instance is known to be gone, and *must* from the answer until its end is begun. So what must be held may never exceed a
host's capacity, and a refusal is right only if every host was full of what may be held, then or a moment before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.lxd.driver import LxdDriver
from tests.support import the_reactor
from tests.web.client import ask

MIB = 1024**2
FORGOTTEN, GIVEN_BACK, FROZEN = 0.05, 0.15, 0.3
"""What becomes of an answer: up to which share of them which fate reaches. The others' instances are deleted."""
HEARD = 1.0
"""Seconds within which the scheduler has to have heard of what happens on a host."""


@dataclass(eq=False)
class Claim:
    """What one answer has given away. Times are the reactor's seconds; None while it is not over."""

    host: str
    cores: int
    asked_at: float
    ending_at: float | None = None
    ended_at: float | None = None


@dataclass
class Churn:
    """Clients of a scheduler at `url`, on hosts of `cores` each, which `drivers` reach by their configured names."""

    url: str
    cores: int
    drivers: Mapping[str, LxdDriver]
    ttl: float
    random: Random = field(default_factory=lambda: Random(3))
    claims: list[Claim] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    most_seen: Counter[str] = field(default_factory=Counter)
    most_held: Counter[str] = field(default_factory=Counter)
    _number: int = 0
    _asking: int = 0  # cores in requests without an answer
    _until: float = 0.0

    async def run(self, seconds: float, clients: int) -> None:
        """Let clients come and go, and look at the hosts all the while."""
        self._until = the_reactor().seconds() + seconds
        watching = [Deferred.fromCoroutine(self._watch(host)) for host in self.drivers]
        working = [Deferred.fromCoroutine(self._client()) for _ in range(clients)]
        for each in working + watching:
            await each

    def _now(self) -> float:
        return the_reactor().seconds()

    async def _watch(self, host: str) -> None:
        """Compare what the host itself lists with what it has."""
        while self._now() < self._until:
            rows = await self.drivers[host].instances()
            taken = sum(int(row["config"]["limits.cpu"]) for row in rows if row["status"] != "Frozen")
            self.most_seen[host] = max(self.most_seen[host], taken)
            if taken > self.cores:
                self.wrong.append(f"{host} shows {taken} of {self.cores} cores")
            await deferLater(the_reactor(), 0.02)

    async def _client(self) -> None:
        while self._now() < self._until:
            self._number += 1
            name, cores, fate = f"i{self._number}", self.random.choice((1, 1, 2)), self.random.random()
            body: dict[str, object] = {"cpu": cores, "memory": 32 * MIB}
            # What comes to nothing has a name: else another's instance takes it over, and the other's claim is left.
            if fate < GIVEN_BACK or self.random.random() < 0.5:
                body["instance_name"] = name
            if self.random.random() < 0.3:
                body["request_id"] = name
            asked_at = self._now()
            self._asking += cores
            answer = await ask("POST", self.url + "/schedule", body)
            self._asking -= cores
            if answer.status == 200:
                claim = Claim(answer.body["host"], cores, asked_at)
                self._held(claim)
                await self._live(claim, name, fate, answer.body["reservation"]["id"])
            elif answer.body["code"] == "no_capacity":
                self._refused(cores, asked_at)
                await deferLater(the_reactor(), 0.05)
            else:
                self.wrong.append(f"{answer.status} {answer.body}")

    async def _live(self, claim: Claim, name: str, fate: float, reservation: str) -> None:
        """Live an instance's life."""
        driver = self.drivers[claim.host]
        await deferLater(the_reactor(), self.random.uniform(0, 0.3))
        if fate < FORGOTTEN:  # its client breaks down, and nobody ever makes the instance
            self.counts["forgotten"] += 1
            claim.ending_at = claim.asked_at + self.ttl
            claim.ended_at = claim.ending_at + HEARD
            return
        if fate < GIVEN_BACK:  # its client thinks better of it
            self.counts["given back"] += 1
            claim.ending_at = self._now()
            await ask("DELETE", f"{self.url}/reservations/{reservation}")
            claim.ended_at = self._now()
            return
        config = {"limits.cpu": str(claim.cores), "limits.memory": "32MiB"}
        await driver.create(name, config=config, startable=True)
        await driver.start(name)
        await deferLater(the_reactor(), self.random.uniform(0, 0.5))
        claim.ending_at = self._now()
        if fate < FROZEN:
            self.counts["frozen"] += 1
            await driver.freeze(name)
        else:
            self.counts["deleted"] += 1
            await driver.stop(name)
            await driver.delete(name)
        claim.ended_at = self._now()

    def _held(self, claim: Claim) -> None:
        """Check an answer: all that must be held on its host has room there."""
        self.counts["placed"] += 1
        self.claims.append(claim)
        now = self._now()
        self.claims = [each for each in self.claims if each.ended_at is None or each.ended_at + 30 > now]
        held = sum(
            each.cores
            for each in self.claims
            if each.host == claim.host and (each.ending_at is None or each.ending_at > now)
        )
        self.most_held[claim.host] = max(self.most_held[claim.host], held)
        if held > self.cores:
            self.wrong.append(f"{claim.host} was given away: {held} of {self.cores} cores")

    def _refused(self, cores: int, asked_at: float) -> None:
        """Check a refusal: no host had room, not even a moment before."""
        self.counts["refused"] += 1
        for host in self.drivers:
            may = sum(
                each.cores
                for each in self.claims
                if each.host == host and (each.ended_at is None or each.ended_at > asked_at - HEARD)
            )
            # What is on its way may have been given away already.
            if self.cores - may - self._asking >= cores:
                self.wrong.append(f"{cores} cores were refused, {host} had {self.cores - may}")
