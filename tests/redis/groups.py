"""Sentinels that watch a server, and clusters of servers, for tests."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

from tests.redis.server import RedisServer, TlsFiles, redis_server


class Sentinel(RedisServer):
    """One redis-sentinel."""

    program = "redis-sentinel"

    def _configure(self, lines: Sequence[str]) -> None:
        # It has nothing to save and to copy, and no primary of its own.
        super()._configure([line for line in lines if not line.startswith(("save ", "repl-", "masterauth "))])


class Sentinels:
    """Three Sentinels that watch one primary, under the name `service`, and know each other from the start.

    `password` is what they themselves want of their clients. They move to a replica about a second after the primary
    is gone.
    """

    def __init__(
        self,
        primary: RedisServer,
        replicas: Sequence[RedisServer] = (),
        *,
        service: str = "fleet",
        host: str = "127.0.0.1",
        password: str | None = None,
        tls: TlsFiles | None = None,
        count: int = 3,
    ) -> None:
        self.service = service
        self.primary = primary
        self.replicas = tuple(replicas)
        self.each = tuple(Sentinel(host=host, password=password, tls=tls) for _ in range(count))
        ids = {sentinel: f"{random.getrandbits(160):040x}" for sentinel in self.each}
        for sentinel in self.each:
            lines = [
                f"sentinel myid {ids[sentinel]}",
                f"sentinel monitor {service} {primary.host} {primary.port} {count // 2 + 1}",
                f"sentinel down-after-milliseconds {service} 500",
                f"sentinel failover-timeout {service} 3000",
            ]
            if primary.password is not None:
                lines.append(f'sentinel auth-pass {service} "{primary.password}"')
            if password is not None:
                lines.append(f'sentinel sentinel-pass "{password}"')
            if tls is not None:
                lines.append("tls-replication yes")
            lines += [f"sentinel known-replica {service} {replica.host} {replica.port}" for replica in replicas]
            lines += [
                f"sentinel known-sentinel {service} {other.host} {other.port} {ids[other]}"
                for other in self.each
                if other is not sentinel
            ]
            with sentinel.config.open("a") as config:
                config.write("\n".join(lines) + "\n")

    @property
    def addresses(self) -> str:
        """Where they listen: `host:port` with commas between them."""
        return ",".join(sentinel.address for sentinel in self.each)

    @property
    def url(self) -> str:
        """Where they are, as the setting `redis_url` has it; the password is that of the servers."""
        scheme = "redis+sentinel" if self.each[0].tls is None else "rediss+sentinel"
        user = "" if self.primary.password is None else f":{self.primary.password}@"
        return f"{scheme}://{user}{self.addresses}/{self.service}"

    def start(self) -> None:
        """Start them, and wait until they can agree on a fail-over."""
        for sentinel in self.each:
            sentinel.start()
        for sentinel in self.each:
            sentinel.await_reply(
                lambda reply: isinstance(reply, str) and reply.startswith("OK"), "SENTINEL", "CKQUORUM", self.service
            )
            if self.replicas:
                sentinel.await_reply(self._sees_replicas, "SENTINEL", "REPLICAS", self.service)

    def _sees_replicas(self, reply: Any) -> bool:
        # What it has not heard from yet, it would not choose.
        rows = [dict(zip(row[::2], row[1::2], strict=True)) for row in reply]
        return len(rows) == len(self.replicas) and all(
            row["flags"] == "slave" and row.get("master-link-status") == "ok" for row in rows
        )

    def leader(self) -> tuple[str, int]:
        """Where the first of them that answers says that the primary is, as host and port."""
        for sentinel in self.each:
            if sentinel.pid is not None:
                host, port = sentinel.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
                return host, int(port)
        raise AssertionError("no Sentinel runs")

    def failover(self) -> None:
        """Tell them to make a replica the primary now; it takes them a second or so."""
        self.each[0].cli("SENTINEL", "FAILOVER", self.service)

    def cleanup(self) -> None:
        """End them all."""
        for sentinel in self.each:
            sentinel.cleanup()


@contextlib.contextmanager
def sentinels(primary: RedisServer, replicas: Sequence[RedisServer] = (), **options: Any) -> Iterator[Sentinels]:
    """Run three Sentinels, with the arguments of Sentinels, and leave nothing of them behind."""
    found = Sentinels(primary, replicas, **options)
    try:
        found.start()
        yield found
    finally:
        found.cleanup()


@contextlib.contextmanager
def redis_cluster(count: int = 2, **options: Any) -> Iterator[tuple[RedisServer, ...]]:
    """Run a cluster of primaries that share the slots evenly, the first the lowest ones."""
    with contextlib.ExitStack() as stack:
        nodes = tuple(stack.enter_context(redis_server(cluster=True, **options)) for _ in range(count))
        for number, node in enumerate(nodes):
            node.cli("CLUSTER", "ADDSLOTSRANGE", number * 16384 // count, (number + 1) * 16384 // count - 1)
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            bus = node.cli("CONFIG", "GET", "cluster-port")[1]
            nodes[0].cli("CLUSTER", "MEET", node.host, node.port, bus)
        for node in nodes:
            node.await_reply(
                lambda reply: "cluster_state:ok" in str(reply) and f"cluster_known_nodes:{count}" in str(reply),
                "CLUSTER",
                "INFO",
            )
        yield nodes
