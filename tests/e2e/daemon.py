"""Starts programs as people do, in processes of their own, and speaks to them over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance import conforms

BIN = Path(sys.executable).parent
TWISTD = [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "lxdsched"]
LXDSCHED = str(BIN / "lxdsched")
TOLD_TO_END = -signal.SIGTERM
"""The exit status of a daemon that stopped cleanly: twistd stops, then ends by the signal that it was sent."""
FAULTY = 78
"""The exit status of a daemon whose configuration has faults: sysexits' EX_CONFIG."""
PATIENCE = 60.0
"""Seconds for a program to start or to end, on a machine that is busy with other things."""


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without any setting of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LXD")} | more


def faulty(command: Sequence[str]) -> int:
    """Return the exit status of a program of ours that does not like its configuration."""
    return 1 if command[0] == LXDSCHED else FAULTY


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for_port(port: int, running: Running) -> None:
    """Wait until the program listens on this port."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert running.process.poll() is None, f"it ended: {running.process.communicate()[0].decode()}"
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on port {port}")


@dataclass
class Running:
    """A started program. `lines` are those of its output that were read."""

    process: subprocess.Popen[bytes]
    lines: list[str] = field(default_factory=list)

    def wait_for(self, text: str) -> str:
        """Read its output until a line holds this text; return the line."""
        assert self.process.stdout is not None
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if select.select([self.process.stdout], [], [], 0.5)[0]:
                line = self.process.stdout.readline().decode()
                if not line:
                    break
                self.lines.append(line.rstrip("\n"))
                if text in line:
                    return self.lines[-1]
        raise AssertionError(f"{text!r} was not said in:\n" + "\n".join(self.lines))

    def read(self) -> None:
        """Read what it has said until now: a program whose output nobody reads comes to a halt."""
        assert self.process.stdout is not None
        while select.select([self.process.stdout], [], [], 0)[0] and (line := self.process.stdout.readline()):
            self.lines.append(line.decode().rstrip("\n"))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, read what is left of its output, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=PATIENCE)
        self.lines += output.decode().splitlines()
        return self.process.returncode


@contextmanager
def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    directory: Path | None = None,
    descriptors: Sequence[int] = (),
) -> Iterator[Running]:
    """Run a program, which gets some of our open files; it has ended when this is left."""
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=descriptors,
        bufsize=0,
    )
    running = Running(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def daemon(
    hosts: object,
    *options: str,
    directory: Path | None = None,
    within: Sequence[str] = (),
    logfile: Path | None = None,
    **environment: str,
) -> Iterator[Daemon]:
    """Run `twistd lxdsched` on these hosts, listening; by the command `within` that leads elsewhere.

    What it logs goes to `logfile`, where that is given: there is room for more there than in a pipe that nobody reads.
    """
    logging = [] if logfile is None else [f"--logfile={logfile}"]
    settings = clean_environment(
        LXD_MULTI_HOSTS=json.dumps(hosts), LXD_MULTI_SCHEDULER_PORT=str(port := free_port()), **environment
    )
    with run([*within, *TWISTD[:-1], *logging, TWISTD[-1], *options], settings, directory) as running:
        if within:
            running.wait_for("listens on")
        else:
            wait_for_port(port, running)
        yield Daemon(running, port)


@dataclass
class Daemon:
    """A running daemon."""

    running: Running
    port: int

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask once; return the status and the JSON answer, which must be as the daemon describes it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        conforms(method, path, response.status, headers, answer)
        return response.status, answer

    def schedule(self, cores: int = 1, memory: int = 1024, **more: object) -> tuple[int, Any]:
        """Ask for a place in the documented form; memory in MiB."""
        return self.ask("POST", "/schedule", {"instance_requirements": {"cpu": cores, "memory": memory}, **more})

    def would_choose(self, cores: int = 1, memory: int = 1024) -> str | None:
        """Ask where an instance would go now, and claim nothing."""
        _, answer = self.schedule(cores, memory, dry_run=True)
        found: str | None = answer.get("host")
        return found

    def soon(self, wanted: Callable[[], object], expected: object) -> None:
        """Wait for something that the daemon is about to hear of: a busy machine takes its time."""
        until = time.monotonic() + PATIENCE
        while (found := wanted()) != expected:
            assert time.monotonic() < until, f"{found} is not {expected}"
            time.sleep(0.02)

    def host(self, name: str) -> dict[str, Any]:
        """Return what `/hosts` says of one host."""
        _, shown = self.ask("GET", "/hosts")
        return next(dict(host) for host in shown["hosts"] if host["host"] == name)

    def log(self) -> list[dict[str, Any]]:
        """Return the log lines that were read, as the objects that they are."""
        return [json.loads(line) for line in self.running.lines if line.startswith("{")]
