"""Several daemons on one Redis, over simulated hosts in a process of their own."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.daemon import PATIENCE, Daemon, clean_environment, daemon, run
from tests.e2e.load import Client

ROOT = Path(__file__).parents[2]
HOSTS, CORES, ASKED = 10, 16, 2
EACH = CORES // ASKED
"""How many requests of ASKED cores fit on one host."""
ROOM = HOSTS * EACH
"""How many fit on all hosts."""


@dataclass(frozen=True)
class Fleet:
    """Simulated hosts without any instance; `hosts` is LXD_MULTI_HOSTS."""

    hosts: Sequence[dict[str, Any]]

    @property
    def names(self) -> list[str]:
        return [each["host"] for each in self.hosts]

    def change(self, host: str, method: str, path: str, body: object = None) -> None:
        """Change something on a host by hand, as `lxc` does, and wait until it is done."""
        found = next(each for each in self.hosts if each["host"] == host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(found["client_cert"], found["client_key"])
        address = urlsplit(host)
        line = http.client.HTTPSConnection(str(address.hostname), address.port, timeout=PATIENCE, context=context)
        try:
            line.request(method, path, None if body is None else json.dumps(body))
            answer = json.loads(line.getresponse().read())
            assert not answer["error"], answer
            if answer["type"] == "async":
                line.request("GET", f"{answer['operation']}/wait")
                ended = json.loads(line.getresponse().read())["metadata"]
                assert ended["status_code"] == 200, ended
        finally:
            line.close()

    def create(self, host: str, name: str, cores: int) -> None:
        """Create an instance of so many cores and as many GiB."""
        config = {"limits.cpu": str(cores), "limits.memory": f"{cores}GiB"}
        self.change(host, "POST", "/1.0/instances", {"name": name, "source": {"type": "none"}, "config": config})

    def delete(self, host: str, name: str) -> None:
        """Delete an instance."""
        self.change(host, "DELETE", f"/1.0/instances/{name}")


@contextmanager
def simulated(hosts: int = HOSTS, cores: int = CORES) -> Iterator[Fleet]:
    """Run simulated hosts of so many cores in a process of their own."""
    with tempfile.TemporaryDirectory(prefix="lxdsched-fleet-") as directory:
        command = [sys.executable, "-m", "tests.e2e.simulated", str(hosts), str(cores), directory]
        with run(command, clean_environment(), ROOT) as running:
            yield Fleet(json.loads(running.wait_for("[")))
            running.process.terminate()
            running.process.wait(PATIENCE)


@dataclass(frozen=True)
class Replicas:
    """Daemons that share a Redis."""

    each: Sequence[Daemon]

    @property
    def ports(self) -> list[int]:
        return [one.port for one in self.each]

    def readiness(self) -> list[tuple[int, str | None]]:
        """Ask all whether they are ready: the status of the answer, and of the daemon."""
        said = [one.ask("GET", "/readyz") for one in self.each]
        return [(status, body.get("status")) for status, body in said]

    def become(self, status: int, said: str | None) -> float:
        """Wait until all say so; return the moment at which they did."""
        try:
            soon(self.readiness, [(status, said)] * len(self.each))
        except AssertionError as error:
            for each in self.each:
                each.running.end()
            logs = ["\n".join(each.running.lines) for each in self.each]
            raise AssertionError("\n\n".join([str(error), *logs])) from None
        return time.monotonic()

    def reservations(self) -> list[dict[str, dict[str, Any]]]:
        """Ask all for what is reserved, by id."""
        found = []
        for one in self.each:
            status, body = one.ask("GET", "/reservations")
            assert status == 200, body
            found.append({each["id"]: each for each in body["reservations"]})
        return found

    def listed(self) -> list[set[str]]:
        """Ask all for the ids of what is reserved."""
        return [set(found) for found in self.reservations()]

    def release_all(self) -> None:
        """Give everything back that is reserved."""
        client = Client()
        for reservation in set[str]().union(*self.listed()):
            assert client.release(self.ports[0], reservation) in {204, 404}
        client.close()
        soon(self.listed, [set[str]()] * len(self.each))


@contextmanager
def replicas(fleet: Fleet, urls: Sequence[str], *options: str, ready: str | None = "ready") -> Iterator[Replicas]:
    """Run a daemon for each of these addresses of one Redis; wait until they are `ready`, whatever that is to be."""
    with ExitStack() as stack:

        def start(url: str) -> Daemon:
            settings = ("--log-level=warn", f"--redis-url={url}", *options)
            return stack.enter_context(daemon(list(fleet.hosts), *settings))

        with ThreadPoolExecutor(len(urls)) as pool:
            made = Replicas(list(pool.map(start, urls)))
        made.become(200 if ready else 503, ready)
        yield made


def soon(wanted: Callable[[], object], expected: object, patience: float = PATIENCE / 2) -> None:
    """Wait for what is about to be."""
    until = time.monotonic() + patience
    while (found := wanted()) != expected:
        assert time.monotonic() < until, f"{found} is not {expected}"
        time.sleep(0.02)
