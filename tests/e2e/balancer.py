"""Load balancers in front of replicas, with the very configurations that docs/high-availability.md shows."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.daemon import TOLD_TO_END, TWISTD, Daemon, clean_environment, run, wait_for_port
from tests.e2e.replicas import Fleet, soon
from tests.redis.server import free_port

PAGE = Path(__file__).parents[2] / "docs" / "high-availability.md"
ADDRESSES = ("192.0.2.11:8080", "192.0.2.12:8080")
"""Where the page has its two replicas."""


def snippet(language: str) -> str:
    """Return the page's one block in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return str(found)


def filled(text: str, replacements: dict[str, str]) -> str:
    """Replace what stands in the text exactly once."""
    for old, new in replacements.items():
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


class Replica:
    """A daemon that can be ended and started again, always on the same port."""

    def __init__(self, fleet: Fleet, url: str, *options: str) -> None:
        self._fleet = fleet
        self._url = url
        self._options = options
        self._stack = ExitStack()
        self._daemon: Daemon | None = None
        self.port = free_port()

    @property
    def daemon(self) -> Daemon:
        """It, while it runs."""
        assert self._daemon is not None
        return self._daemon

    @property
    def runs(self) -> bool:
        return self._daemon is not None and self.daemon.running.process.poll() is None

    @property
    def pid(self) -> int:
        return self.daemon.running.process.pid

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        environment = clean_environment(
            LXD_MULTI_HOSTS=json.dumps(list(self._fleet.hosts)),
            LXD_MULTI_SCHEDULER_PORT=str(self.port),
            LXD_MULTI_SCHEDULER_REDIS_URL=self._url,
            LXD_MULTI_LOG_LEVEL="warn",
        )
        running = self._stack.enter_context(run([*TWISTD, *self._options], environment))
        wait_for_port(self.port, running)
        self._daemon = Daemon(running, self.port)
        soon(self.readiness, (200, "ready"))

    def readiness(self) -> tuple[int, str | None]:
        """Ask it whether it is ready: the status of the answer, and its own."""
        status, body = self.daemon.ask("GET", "/readyz")
        return status, body.get("status")

    def stop(self) -> None:
        """End it as an operator does."""
        assert self.daemon.running.end() == TOLD_TO_END

    def kill(self) -> None:
        """Kill it."""
        self.daemon.running.end(signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing of it behind."""
        self._stack.close()


@dataclass(frozen=True)
class Balancer:
    """What clients speak to. `settled` tells whether it would give requests to all replicas."""

    port: int
    settled: Callable[[], bool]


def missing(program: str) -> str | None:
    """Say that a program is not installed; None when it is."""
    # Debian has them where only root looks.
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    return None if found else f"{program} cannot be found: make deps installs it"


@contextmanager
def haproxy(directory: Path, ports: Sequence[int]) -> Iterator[Balancer]:
    """Run HAProxy, with its files in this directory, in front of the replicas at these ports."""
    port = free_port()
    admin = directory / "admin.sock"
    text = filled(
        snippet("haproxy"),
        {
            "bind :8080": f"bind 127.0.0.1:{port}",
            "/run/haproxy/admin.sock": str(admin),
            **{each: f"127.0.0.1:{one}" for each, one in zip(ADDRESSES, ports, strict=True)},
        },
    )
    config = directory / "haproxy.cfg"
    config.write_text(text)
    with _run("haproxy", "-db", "-f", str(config)) as started:
        started(port)
        soon(admin.exists, True)
        balancer = Balancer(port, lambda: all(each.startswith("UP") for each in _states(admin)))
        soon(balancer.settled, True)
        yield balancer


def _states(admin: Path) -> list[str]:
    """Ask HAProxy what it takes its servers for."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(admin))
        line.sendall(b"show stat\n")
        said = b"".join(iter(lambda: line.recv(65536), b"")).decode()
    head, *rows = (row.split(",") for row in said.removeprefix("# ").split("\n") if row)
    found = [dict(zip(head, row, strict=False)) for row in rows]
    return [each["status"] for each in found if each["svname"].startswith("scheduler-")]


@contextmanager
def nginx(directory: Path, ports: Sequence[int]) -> Iterator[Balancer]:
    """Run nginx, with its files in this directory, in front of the replicas at these ports."""
    port = free_port()
    text = filled(
        snippet("nginx"),
        {
            "listen 8080": f"listen 127.0.0.1:{port}",
            **{each: f"127.0.0.1:{one}" for each, one in zip(ADDRESSES, ports, strict=True)},
        },
    )
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{name}_temp_path {directory};" for name in names)
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}\n{text}}}\n"
    )
    with _run("nginx", "-e", str(directory / "error.log"), "-c", str(config)) as started:
        started(port)
        # It looks at no replica but by giving it requests.
        yield Balancer(port, lambda: True)


@contextmanager
def _run(*command: str) -> Iterator[Callable[[int], None]]:
    environment = clean_environment()
    environment["PATH"] += ":/usr/sbin"
    program = shutil.which(command[0], path=environment["PATH"])
    assert program is not None
    with run([program, *command[1:]], environment) as running:
        yield lambda port: wait_for_port(port, running)
        running.end()


BALANCERS: dict[str, Callable[[Path, Sequence[int]], AbstractContextManager[Balancer]]] = {
    "haproxy": haproxy,
    "nginx": nginx,
}
