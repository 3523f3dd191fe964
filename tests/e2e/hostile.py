"""Hostile clients, thousands of them, in one process: `python -m tests.e2e.hostile PLAN`, the plan as JSON.

Says a line when all have come, goes on until its input ends or its time is over, and says in a last line what it has
come to. It keeps to a CPU of its own where there are two, else it steps back, so that what it does to a daemon is not
only to take its CPU away.
"""

from __future__ import annotations

import heapq
import json
import os
import resource
import select
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count

from tests.e2e.attacker import Client, Tally
from tests.e2e.hostility import GROUPS, Kind, kinds, trusting

AT_ONCE, AT_ONCE_TLS = 512, 32
"""How many connections are being made at a time; handshakes that have begun are to end before the daemon gives up."""
SULK = 0.5
"""Seconds until a client comes back that was dropped, unless it floods."""
GATHERING = 5.0
"""Seconds after which it is said that all have come though some still wait for a connection."""


@dataclass(frozen=True)
class Plan:
    """Who attacks 127.0.0.1 at `port`: how many of each group, from how many addresses (at most 250) each group."""

    port: int
    tls: bool = False
    half_open: int = 0
    slow: int = 0
    flooding: int = 0
    addresses: int = 1
    seconds: float = 60.0
    cpu: int | None = None

    def crowd(self) -> Iterator[tuple[Kind, str]]:
        """Return every client's kind and address."""
        every = kinds(tls=self.tls)
        for number, (group, size) in enumerate(zip(GROUPS, (self.half_open, self.slow, self.flooding), strict=True), 1):
            those = [kind for kind in every if kind.group == group]
            for each in range(size):
                yield those[each % len(those)], f"127.0.{number}.{each % self.addresses + 1}"


class Crowd:
    """All clients, and what they have come to."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.context = trusting() if plan.tls else None
        self.epoll = select.epoll()
        self.tallies = {kind.name: Tally() for kind in kinds(tls=plan.tls)}
        self.waiting = deque(
            Client(self, kind, address, plan.port, self.tallies[kind.name]) for kind, address in plan.crowd()
        )
        self.size = len(self.waiting)
        self.clients: dict[int, Client] = {}
        self.connecting = 0
        self._at_once = AT_ONCE_TLS if plan.tls else AT_ONCE
        self._timers: list[tuple[float, int, Client, int]] = []
        self._turns = count()
        self._seen: set[int] = set()

    def register(self, client: Client) -> None:
        """Watch a connection that is being made."""
        self.connecting += 1
        self.clients[client.fd] = client
        self.epoll.register(client.fd, client.mask)

    def came_up(self, client: Client) -> None:
        """Count a connection."""
        self.connecting -= 1
        self._seen.add(id(client))
        tally = client.tally
        tally.connected += 1
        tally.open += 1
        tally.most = max(tally.most, tally.open)

    def later(self, seconds: float, client: Client) -> None:
        """Let a client go on later, if its connection lasts."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._turns), client, client.life))

    def over(self, client: Client, why: OSError) -> None:
        """Count the end of a connection, and have the client come again."""
        del self.clients[client.fd]
        client.sock.close()
        if client.up:
            client.tally.open -= 1
            client.tally.dropped += not isinstance(why, ConnectionAbortedError)
        else:
            self.connecting -= 1
            client.tally.failed += 1
            self._seen.add(id(client))
        client.life += 1
        client.up = False
        if client.kind.group == "flooding":
            self.waiting.append(client)
        else:
            self.later(SULK, client)

    def turn(self) -> None:
        """Let everybody go on who can."""
        while self.waiting and self.connecting < self._at_once:
            client = self.waiting.popleft()
            try:
                client.connect()
            except OSError:
                client.tally.failed += 1
                self.later(SULK, client)
        for fd, events in self.epoll.poll(0.05, 128):
            if fd in self.clients:
                self._go_on(self.clients[fd], events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, client, life = heapq.heappop(self._timers)
            if life == client.life:
                if client.up:
                    self._go_on(client, None)
                else:
                    self.waiting.append(client)

    def _go_on(self, client: Client, events: int | None) -> None:
        try:
            if events is None:
                client.drip()
            else:
                client.event(events)
        except OSError as why:
            self.over(client, why)

    @property
    def complete(self) -> bool:
        """Whether everybody has come, or was turned away."""
        return len(self._seen) == self.size


def attack(plan: Plan) -> None:
    """Attack as planned, and tell what it has come to."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if plan.cpu is None:
        os.nice(10)
    else:
        os.sched_setaffinity(0, {plan.cpu})
    crowd = Crowd(plan)
    began = time.monotonic()
    told = False
    while time.monotonic() < began + plan.seconds and not select.select([sys.stdin], [], [], 0)[0]:
        crowd.turn()
        if not told and (crowd.complete or time.monotonic() > began + GATHERING):
            told = True
            print(json.dumps({"open": len(crowd.clients), "after": time.monotonic() - began}), flush=True)
    said = {name: asdict(tally) for name, tally in crowd.tallies.items() if tally.clients}
    print(json.dumps({"seconds": time.monotonic() - began, "kinds": said}), flush=True)


if __name__ == "__main__":
    attack(Plan(**json.loads(sys.argv[1])))
