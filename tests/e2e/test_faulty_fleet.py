"""The daemon over a fleet most of which misbehaves, at once and all the time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from lxdsched.sandbox.certs import make_certificate
from lxdsched.sandbox.faults import Blackhole, Drip, Fault, Flood, Garbage, Reset
from lxdsched.sandbox.records import Hardware
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from tests.e2e.daemon import TOLD_TO_END, daemon
from tests.support import the_reactor
from tests.web.client import Answer, ask

FAULTS: dict[str, Fault | None] = {
    "black-holed": Blackhole(),
    "resetting": Reset(),
    "dripping": Drip(seconds=0.5),
    "flooding": Flood(size=1024**3, framing="length"),
    "endless": Flood(),
    "garbage": Garbage(kind="binary"),
    "untrusting": None,
    "good-1": None,
    "good-2": None,
}
BODY = {"instance_requirements": {"cpu": 1, "memory": 64}}


def resident(pid: int) -> int:
    """Return the memory that a process holds, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} is gone")


async def states(url: str) -> Mapping[str, str]:
    shown = await ask("GET", url + "/hosts")
    return {host["host"]: host["state"] for host in shown.body["hosts"]}


@pytest_twisted.ensureDeferred
async def test_good_hosts_go_on_beside_bad_ones_memory_stays_bounded_and_healed_hosts_return(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    pair, server_pair = make_certificate("scheduler", now=now, client=True), make_certificate("node", now=now)
    certificate, key = pair.write(tmp_path, "client")
    servers: dict[str, SandboxServer] = {}
    for name, fault in FAULTS.items():
        # The good hosts are the fuller ones: whoever trusts a bad one at all would choose it.
        state = ServerState(name, Hardware(threads=512, memory=2**40))
        state.add_instance("load", {"limits.cpu": "9" if name.startswith("good") else "1", "limits.memory": "1GiB"})
        if name != "untrusting":
            state.trust(pair.certificate)
        servers[name] = SandboxServer(state, the_reactor(), keypair=server_pair)  # type: ignore[arg-type]
        servers[name].fault = fault
        await servers[name].start()
    good = {servers["good-1"].url, servers["good-2"].url}
    hosts: list[dict[str, Any]] = [
        {
            "host": server.url,
            "client_cert": str(certificate),
            "client_key": str(key),
            "fingerprint": server_pair.fingerprint,
        }
        for server in servers.values()
    ]
    options = ("--host-timeout=1", "--probe-interval=0.1", "--probe-interval-max=0.2", "--max-answer-size=4MiB")
    try:
        with daemon(hosts, *options, LXD_MULTI_LOG_LEVEL="error", LXD_MULTI_SCHEDULER_LOG_FORMAT="json") as served:
            url = f"http://127.0.0.1:{served.port}"
            first = await ask("POST", url + "/schedule", BODY)
            assert first.body["host"] in good
            before = resident(served.running.process.pid)
            answers: list[Answer] = []
            for _ in range(20):
                asking = [Deferred.fromCoroutine(ask("POST", url + "/schedule", BODY)) for _ in range(10)]
                answers += [await each for each in asking]
                await deferLater(the_reactor(), 0.05)
            assert {answer.status for answer in answers} == {200}
            assert {answer.body["host"] for answer in answers} <= good
            # Seven hosts may hold one answer of 4 MiB each, and the decoder as much again.
            assert resident(served.running.process.pid) - before < 64 * 1024**2
            seen = await states(url)
            assert [seen[server.url] for server in servers.values()] == ["unreachable"] * 6 + ["untrusted"] + [
                "live"
            ] * 2
            for server in servers.values():
                server.fault = None
                server.state.trust(pair.certificate)
            for _ in range(200):
                seen = await states(url)
                if set(seen.values()) == {"live"}:
                    break
                await deferLater(the_reactor(), 0.1)
            assert set(seen.values()) == {"live"}
            healed = await ask("POST", url + "/schedule", BODY)
            assert healed.body["host"] not in good
            assert served.running.end() == TOLD_TO_END
    finally:
        for server in servers.values():
            await server.stop()
