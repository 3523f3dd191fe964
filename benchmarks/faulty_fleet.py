"""What bad hosts cost the requests that good hosts answer, once the first request has found them out.

Two daemons run over the same two good hosts; one of them has six bad hosts in its configuration as well. Both are
asked in turn, so that whatever else the machine does falls on both alike. Printed are the medians and 95th percentiles
of the answers' times, and the ratio between the two daemons.

    python benchmarks/faulty_fleet.py [REQUESTS]
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.task import react
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from lxdsched.sandbox.certs import make_certificate
from lxdsched.sandbox.faults import Blackhole, Drip, Fault, Flood, Garbage, Reset
from lxdsched.sandbox.records import Hardware
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState

FAULTS: dict[str, Fault | None] = {
    "black-holed": Blackhole(),
    "resetting": Reset(),
    "dripping": Drip(seconds=0.5),
    "flooding with 1 GB": Flood(size=10**9, framing="length"),
    "garbage": Garbage(kind="binary"),
    "untrusting": None,
}
TWISTD = [str(Path(sys.executable).parent / "twistd"), "--nodaemon", "--pidfile=", "lxdsched"]
BODY = json.dumps({"instance_requirements": {"cpu": 1, "memory": 64}})


@contextmanager
def daemon(hosts: list[dict[str, Any]]) -> Iterator[http.client.HTTPConnection]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = dict(os.environ, LXD_MULTI_HOSTS=json.dumps(hosts), LXD_MULTI_SCHEDULER_PORT=str(port))
    process = subprocess.Popen(TWISTD, env=environment, stdout=subprocess.DEVNULL)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.05)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        ask(connection)  # the first one finds the bad hosts out
        yield connection
        connection.close()
    finally:
        process.terminate()
        process.wait()


def ask(connection: http.client.HTTPConnection) -> float:
    began = time.perf_counter()
    connection.request("POST", "/schedule", BODY)
    response = connection.getresponse()
    answer = json.loads(response.read())
    seconds = time.perf_counter() - began
    if response.status != http.client.OK:
        raise SystemExit(f"refused: {answer}")
    connection.request(
        "DELETE", f"/reservations/{answer['reservation']['id']}"
    )  # else the good hosts would be full soon
    connection.getresponse().read()
    return seconds


def compare(good: list[dict[str, Any]], every: list[dict[str, Any]], requests: int) -> None:
    with ExitStack() as stack:
        alone, beside = (stack.enter_context(daemon(hosts)) for hosts in (good, every))
        times: dict[str, list[float]] = {"2 good hosts": [], f"beside {len(every) - len(good)} bad ones": []}
        for _ in range(requests):
            for samples, connection in zip(times.values(), (alone, beside), strict=True):
                samples.append(ask(connection))
    print(f"{'':<22}{'median':>10}{'p95':>10}")
    table = []
    for name, samples in times.items():
        row = statistics.median(samples), statistics.quantiles(samples, n=20)[-1]
        table.append(row)
        print(f"{name:<22}{row[0] * 1000:>8.2f}ms{row[1] * 1000:>8.2f}ms")
    print(f"{'ratio':<22}{table[1][0] / table[0][0]:>10.2f}{table[1][1] / table[0][1]:>10.2f}")


async def main(reactor: Any, requests: int) -> None:
    now = datetime.now(UTC)
    pair, server_pair = make_certificate("scheduler", now=now, client=True), make_certificate("node", now=now)
    servers = []
    for name, fault in {"good-1": None, "good-2": None, **FAULTS}.items():
        state = ServerState(name, Hardware())
        if name != "untrusting":
            state.trust(pair.certificate)
        servers.append(server := SandboxServer(state, reactor, keypair=server_pair))
        server.fault = fault
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
        await deferToThreadPool(reactor, pool, compare, hosts[:2], hosts, requests)
    pool.stop()
    for server in servers:
        await server.stop()


if __name__ == "__main__":
    react(lambda reactor: main(reactor, int(sys.argv[1]) if sys.argv[1:] else 300))
