"""A fleet of simulated servers of different sizes and loads, and the configuration that names them.

The first five servers are always the same; further ones vary by their number alone, so that two runs are alike.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random

from twisted.internet.defer import Deferred, gatherResults

from lxdsched.sandbox.answers import utc_now
from lxdsched.sandbox.certs import KeyPair, make_certificate
from lxdsched.sandbox.records import GIB, Hardware, Status
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from lxdsched.sandbox.transport import IReactor, ServerTLS


@dataclass(frozen=True)
class Load:
    """What one server carries: instances of some cores and GiB, frozen ones of a pool, and ones without limits."""

    running: tuple[tuple[int, int], ...] = ()
    pool: tuple[tuple[int, int], ...] = ()
    unlimited: int = 0


@dataclass(frozen=True)
class HostPlan:
    """One server of a fleet to be."""

    name: str
    threads: int
    gib: int
    load: Load = Load()


DEFAULT_PLANS = (
    HostPlan("sandbox-1", 16, 64, Load(running=((2, 4), (2, 4), (4, 8)), pool=((2, 4), (2, 4)))),
    HostPlan("sandbox-2", 16, 64, Load(running=((1, 2),) * 8 + ((4, 16),), pool=((4, 8),))),
    HostPlan("sandbox-3", 32, 128, Load(running=((8, 32), (8, 32), (4, 8), (2, 4)), pool=((2, 4),) * 4)),
    HostPlan("sandbox-4", 8, 32, Load(running=((2, 8),), unlimited=1)),
    HostPlan("sandbox-5", 64, 256, Load(running=((4, 8),) * 6 + ((16, 64),), pool=((4, 8),) * 2, unlimited=2)),
)

_SIZES = ((8, 32), (16, 64), (24, 96), (32, 128), (48, 192), (64, 256))
_SHAPES = ((1, 1), (1, 2), (2, 4), (2, 8), (4, 8), (4, 16), (8, 32))


def plan_fleet(count: int) -> tuple[HostPlan, ...]:
    """Plan `count` servers: the five default ones, then more of all sorts, the same at every run."""
    return DEFAULT_PLANS[:count] + tuple(_varied(number) for number in range(len(DEFAULT_PLANS) + 1, count + 1))


def _varied(number: int) -> HostPlan:
    random = Random(number)  # noqa: S311 (variety, not secrecy)
    threads, gib = random.choice(_SIZES)
    used = random.uniform(0.0, 0.9) * threads
    running = []
    while True:
        shape = random.choice(_SHAPES)
        used -= shape[0]
        if used < 0:
            break
        running.append(shape)
    pool = tuple(random.choice(_SHAPES) for _ in range(random.randrange(4)))
    unlimited = 1 if number % 7 == 0 else 0
    return HostPlan(f"sandbox-{number}", threads, gib, Load(tuple(running), pool, unlimited))


def build_state(plan: HostPlan) -> ServerState:
    """Make the state of a planned server."""
    state = ServerState(plan.name, Hardware(threads=plan.threads, memory=plan.gib * GIB))
    for number, (cores, gib) in enumerate(plan.load.running):
        # Half of them came out of the pool: taken ones carry the name of their runner.
        labels = {"user.myshoes_runner_name": f"runner-{plan.name}-{number}"} if number % 2 else {}
        state.add_instance(f"job-{number}", _limits(cores, gib) | labels, status=Status.RUNNING)
    for number, (cores, gib) in enumerate(plan.load.pool):
        labels = {"user.myshoes_resource_type": f"{cores}c{gib}g", "user.myshoes_image_alias": "ubuntu-24.04"}
        state.add_instance(f"pool-{number}", _limits(cores, gib) | labels, status=Status.FROZEN)
    for number in range(plan.load.unlimited):
        state.add_instance(f"free-{number}", status=Status.RUNNING)
    return state


def _limits(cores: int, gib: int) -> dict[str, str]:
    return {"limits.cpu": str(cores), "limits.memory": f"{gib}GiB"}


class SandboxFleet:
    """Simulated servers that trust one client certificate, `client`. Listens from `start()` to `stop()`.

    `shared_certificate` gives all servers the same key pair, which makes a thousand of them cheap. `states` are taken
    instead of the planned ones where given; members of one cluster may be among them.
    """

    def __init__(
        self,
        reactor: IReactor,
        count: int = len(DEFAULT_PLANS),
        *,
        states: Sequence[ServerState] | None = None,
        address: str = "127.0.0.1",
        shared_certificate: bool = False,
        client: KeyPair | None = None,
        now: datetime | None = None,
    ) -> None:
        moment = now or utc_now()
        self.client = client or make_certificate("lxdsched", now=moment, client=True)
        chosen = [build_state(plan) for plan in plan_fleet(count)] if states is None else list(states)
        shared = ServerTLS(make_certificate("sandbox", now=moment, san=[address])) if shared_certificate else None
        self.servers: list[SandboxServer] = []
        for state in chosen:
            state.trust(self.client.certificate, name="lxdsched")
            keypair = shared.keypair if shared else make_certificate(state.name, now=moment, san=[address])
            self.servers.append(SandboxServer(state, reactor, keypair=keypair, address=address, tls=shared))

    async def start(self) -> None:
        """Listen with every server; when one cannot, none does, and its CannotListenError is raised."""
        started: list[SandboxServer] = []
        try:
            for server in self.servers:
                await server.start()
                started.append(server)
        except BaseException:
            await self._stop(started)
            raise

    async def stop(self) -> None:
        """Stop every server and reset its connections."""
        await self._stop(self.servers)

    async def _stop(self, servers: Sequence[SandboxServer]) -> None:
        await gatherResults([Deferred.fromCoroutine(server.stop()) for server in servers], consumeErrors=True)

    def hosts_json(self, directory: Path) -> str:
        """The value of LXD_MULTI_HOSTS that names these servers; the client's files are written into `directory`."""
        certificate, key = self.client.write(directory, "client")
        return json.dumps(
            [
                {
                    "host": server.url,
                    "client_cert": str(certificate),
                    "client_key": str(key),
                    "fingerprint": server.keypair.fingerprint,
                }
                for server in self.servers
            ]
        )
