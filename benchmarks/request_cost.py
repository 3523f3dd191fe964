"""What one `POST /schedule` costs the daemon in CPU time, on fleets of different sizes whose hosts are all live.

Daemons over 3, 100 and 1,000 simulated hosts of 20 instances each run at the same time, and beside them a bare Klein
application that echoes JSON. All are asked in turn over one connection each, so that whatever else the machine does
falls on all alike. Counted is the time that the processes spend on a CPU, as the kernel tells it; logs are written.
Hosts are not looked at for safety's sake meanwhile (`poll_interval`), which has a table row of its own.

    python benchmarks/request_cost.py [REQUESTS]
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.task import react
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from lxdsched.sandbox.certs import make_certificate
from lxdsched.sandbox.records import Hardware
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from lxdsched.sandbox.transport import ServerTLS

SIZES = (3, 100, 1000)
INSTANCES = 20
ROUNDS = 10
BODY = json.dumps({"instance_requirements": {"cpu": 1, "memory": 64}})
OPTIONS = (
    "--over-commit-percent=10000",  # room for every request of the run
    "--reservation-ttl=1",
    "--poll-interval=86400",
    "--capacity-interval=86400",
    "--host-timeout=60",
    "--max-rate-per-peer=0",
)
TWISTD = [str(Path(sys.executable).parent / "twistd"), "--nodaemon", "--pidfile="]

ECHO = """
import json, sys
from klein import Klein
from twisted.internet import reactor
from twisted.web.server import Site
app = Klein()
@app.route("/schedule", methods=["POST"])
def schedule(request):
    request.setHeader(b"Content-Type", b"application/json")
    return json.dumps(json.loads(request.content.read()))
class Quiet(Site):
    def log(self, request): pass
site = Quiet(app.resource(), timeout=75, parsePOSTFormSubmission=False)
reactor.listenTCP(int(sys.argv[1]), site, interface="127.0.0.1")
reactor.run()
"""


@dataclass
class Target:
    """A process that is asked, and what its requests have cost it, in microseconds each, round by round."""

    pid: int
    connection: http.client.HTTPConnection
    costs: list[float]

    def ask(self, method: str, path: str, body: str | None = None) -> Any:
        self.connection.request(method, path, body)
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        if response.status != http.client.OK:
            raise SystemExit(f"{path} answers {response.status}: {answer}")
        return answer

    def on_cpu(self) -> float:
        """Say how many seconds the process has spent on a CPU."""
        nanoseconds = Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]
        return int(nanoseconds) / 1e9

    def measure(self, requests: int) -> None:
        before = self.on_cpu()
        for _ in range(requests):
            self.ask("POST", "/schedule", BODY)
        self.costs.append((self.on_cpu() - before) / requests * 1e6)


@contextmanager
def process(command: list[str], port: int, environment: Mapping[str, str]) -> Iterator[Target]:
    with open(os.devnull, "w") as nowhere:
        running = subprocess.Popen(command, env=dict(environment), stdout=nowhere)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if running.poll() is not None:
                raise SystemExit(f"{command} did not start")
            time.sleep(0.05)
        yield Target(running.pid, http.client.HTTPConnection("127.0.0.1", port, timeout=120), [])
    finally:
        running.terminate()
        running.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def daemon(hosts: list[dict[str, Any]], directory: Path) -> Iterator[Target]:
    config = directory / f"{len(hosts)}.toml"
    with config.open("w") as toml:
        for host in hosts:
            print("[[hosts]]", *(f"{key} = {json.dumps(value)}" for key, value in host.items()), sep="\n", file=toml)
    port = free_port()
    command = [*TWISTD, "lxdsched", "--config", str(config), "--port", str(port), *OPTIONS]
    with process(command, port, os.environ) as target:
        while target.ask("GET", "/hosts")["summary"]["by_state"] != {"live": len(hosts)}:
            time.sleep(0.5)
        yield target


def compare(hosts: list[dict[str, Any]], directory: Path, requests: int) -> None:
    with ExitStack() as stack:
        port = free_port()
        echo = stack.enter_context(process([sys.executable, "-c", ECHO, str(port)], port, os.environ))
        targets = {"bare Klein echo": echo}
        for size in SIZES:
            targets[f"{size} hosts"] = stack.enter_context(daemon(hosts[:size], directory))
        for _ in range(ROUNDS):
            for target in targets.values():
                target.measure(requests // ROUNDS)
        resting = {name: target.on_cpu() for name, target in targets.items()}
        time.sleep(10)
        rest = {name: (target.on_cpu() - resting[name]) * 10 for name, target in targets.items()}
    base = median(targets[f"{SIZES[0]} hosts"].costs)
    print(f"{'':<18}{'us/request':>12}{'min':>8}{'max':>8}{f'of {SIZES[0]} hosts':>14}{'at rest':>10}")
    for name, target in targets.items():
        cost = median(target.costs)
        figures = f"{cost:>12.0f}{min(target.costs):>8.0f}{max(target.costs):>8.0f}{cost / base:>14.2f}"
        print(f"{name:<18}{figures}{rest[name]:>9.1f}%")


async def main(reactor: Any, requests: int) -> None:
    now = datetime.now(UTC)
    pair, server_pair = make_certificate("scheduler", now=now, client=True), make_certificate("node", now=now)
    tls = ServerTLS(server_pair)
    servers = []
    for number in range(max(SIZES)):
        state = ServerState(f"node-{number}", Hardware(threads=64, memory=1024**4))
        state.trust(pair.certificate)
        for instance in range(INSTANCES):
            state.add_instance(f"c{instance}", {"limits.cpu": "2", "limits.memory": "4GiB"})
        servers.append(server := SandboxServer(state, reactor, keypair=server_pair, tls=tls))
        await server.start()
    pool = ThreadPool(1, 1)
    pool.start()
    with TemporaryDirectory() as directory:
        certificate, key = pair.write(Path(directory), "client")
        hosts = [
            {
                "host": server.url,
                "client_cert": str(certificate),
                "client_key": str(key),
                "fingerprint": server_pair.fingerprint,
            }
            for server in servers
        ]
        await deferToThreadPool(reactor, pool, compare, hosts, Path(directory), requests)
    pool.stop()
    for server in servers:
        await server.stop()


if __name__ == "__main__":
    react(lambda reactor: main(reactor, int(sys.argv[1]) if sys.argv[1:] else 3000))
