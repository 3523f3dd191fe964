"""A daemon under attack: what an honest client sees of it meanwhile, and what the system says of its process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lxdsched.access.keys import digest, new_key
from lxdsched.sandbox.certs import make_certificate
from tests.e2e.daemon import PATIENCE, TWISTD, clean_environment, free_port
from tests.e2e.honest import LONGEST, Honest, summed
from tests.e2e.hostile import Plan
from tests.e2e.hostility import GROUPS, kinds
from tests.e2e.replicas import ROOT

MIB = 1024**2
FEWEST = 3
"""How often the honest client is answered on each kind of connection, at least."""
LISTENING = "0A"
LOOK = 0.5
"""Seconds between two readings, which cost something with thousands of connections."""


@dataclass(frozen=True)
class Readings:
    """What the system says of a daemon: bytes resident, descriptors, and bytes that its clients do not take."""

    resident: int
    descriptors: int
    untaken: int

    def worst(self, other: Readings) -> Readings:
        """Return the higher one of every two readings."""
        return Readings(*map(max, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Round:
    """What was seen within some seconds: `most` are the highest readings, `attack` what the attackers say.

    They were there for `attacked` seconds, which is longer: some came before and went after.
    """

    seconds: float
    attacked: float
    honest: Honest
    most: Readings
    on_cpu: float
    attack: dict[str, dict[str, Any]]

    def of(self, group: str, what: str) -> int:
        """Sum up what the attackers of a group say."""
        names = {kind.name for tls in (False, True) for kind in kinds(tls=tls) if kind.group == group}
        return sum(tally[what] for name, tally in self.attack.items() if name in names)

    def every(self, what: str) -> int:
        """Sum up what all attackers say."""
        return sum(self.of(group, what) for group in GROUPS)

    def summary(self) -> str:
        """Say in a line what came of it."""
        every = {"kept": self.honest.kept, "new": self.honest.new, "work": self.honest.work}
        times = [f"{name} {summed(taken)}" for name, taken in every.items()]
        return (
            f"honest {', '.join(times)}, {len(self.honest.failures)} failures; {self.most.resident / MIB:.0f} MiB, "
            f"{self.most.descriptors} descriptors, {self.most.untaken / MIB:.1f} MiB not taken, CPU "
            f"{self.on_cpu / self.seconds:.0%}; attackers: {self.every('connected')} connections, "
            f"{self.every('requests')} requests, {dict(self.answers)}, {self.every('dropped')} dropped, "
            f"{self.every('failed')} without a connection"
        )

    @property
    def answers(self) -> Counter[str]:
        """How often the attackers were answered what."""
        found: Counter[str] = Counter()
        for tally in self.attack.values():
            found.update(tally["answers"])
        return found


@dataclass(frozen=True)
class Besieged:
    """A running daemon, whose log goes to a file. `cpus` are the attackers' and the one for everybody else."""

    process: subprocess.Popen[bytes]
    port: int
    tls: bool
    log: Path
    cpus: tuple[int | None, int | None]
    headers: Mapping[str, str] = field(default_factory=dict)

    def read(self) -> Readings:
        """Read what the system says."""
        of = Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (of / "status").read_text().splitlines())
        ours, untaken = f":{self.port:04X}", 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, queues, *_ = line.split()
            if local.endswith(ours) and state != LISTENING:
                untaken += int(queues[:8], 16)
        return Readings(int(status["VmRSS"].split()[0]) * 1024, len(os.listdir(of / "fd")), untaken)

    def on_cpu(self) -> float:
        """Say how many seconds the daemon has spent on a CPU."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def settle(self, descriptors: int, seconds: float = PATIENCE) -> Readings:
        """Wait until no more descriptors are open than these; return the readings then."""
        until = time.monotonic() + seconds
        while (found := self.read()).descriptors > descriptors:
            assert time.monotonic() < until, f"{found.descriptors} descriptors are open, {descriptors} were before"
            time.sleep(0.1)
        return found

    def troubles(self) -> list[str]:
        """Return the lines of the log that tell of a failure of the daemon's own."""
        with self.log.open(errors="replace") as lines:
            return [line for line in lines if "Traceback" in line or '"level": "critical"' in line][:10]

    def round(self, seconds: float, plan: Plan | None = None) -> Round:
        """Let the honest client ask for some seconds, beside the attackers once they all have come."""
        attacked, attack = 0.0, dict[str, Any]()
        with ExitStack() as stack:
            attackers = None
            if plan is not None:
                whole = replace(plan, port=self.port, tls=self.tls, cpu=self.cpus[0], seconds=seconds + 2 * PATIENCE)
                attackers = stack.enter_context(_attackers(whole))
            honest = Honest(self.port, self.tls, self.on_cpu, self.headers)
            most, on_cpu, took = self._watch(honest, seconds)
            if attackers is not None:
                attacked, attack = _end(attackers)
        return Round(took, attacked, honest, most, on_cpu, attack)

    def _watch(self, honest: Honest, seconds: float) -> tuple[Readings, float, float]:
        over = threading.Event()

        def ask() -> None:
            if self.cpus[1] is not None:
                os.sched_setaffinity(0, {self.cpus[1]})  # of this thread alone
            with suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, -10)  # how long it waits for a CPU says nothing of the daemon
            honest.ask(over)

        asking = threading.Thread(target=ask)
        most, began, on_cpu = self.read(), time.monotonic(), self.on_cpu()
        asking.start()
        try:
            # However busy the machine is, it is answered a few times.
            while time.monotonic() < began + seconds or (
                len(honest.new) < FEWEST and time.monotonic() < began + PATIENCE
            ):
                time.sleep(LOOK)
                most = most.worst(self.read())
        finally:
            over.set()
            asking.join(2 * LONGEST)
        return most, self.on_cpu() - on_cpu, time.monotonic() - began


@contextmanager
def _attackers(plan: Plan) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.e2e.hostile", json.dumps(asdict(plan))]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline(), "the attackers have not come"
        yield process
    finally:
        process.kill()
        process.communicate()


def _end(attackers: subprocess.Popen[bytes]) -> tuple[float, dict[str, Any]]:
    report, _ = attackers.communicate(timeout=PATIENCE)
    said = json.loads(report)
    return said["seconds"], said["kinds"]


@contextmanager
def besieged(
    hosts: Sequence[dict[str, Any]], *, tls: bool = False, guarded: bool = False, **options: object
) -> Iterator[Besieged]:
    """Run a daemon on these hosts, all of them live, with these options.

    One that is guarded has access control, and the honest client a key.
    """
    with tempfile.TemporaryDirectory(prefix="lxdsched-siege-") as name, ExitStack() as stack:
        directory, port = Path(name), free_port()
        if tls:
            pair = make_certificate("lxdsched", now=datetime.now(UTC))
            certificate, key_file = pair.write(directory, "server")
            options |= {"tls_cert": certificate, "tls_key": key_file}
        headers = {}
        if guarded:
            key = new_key("00000001")
            clients = directory / "clients.toml"
            clients.touch(mode=0o600)
            clients.write_text(
                f'[honest]\nrights = ["admin"]\nkeys = [{{ id = "00000001", sha256 = "{digest(key).hex()}", '
                "created = 2026-01-01T00:00:00Z }]\n"
            )
            options |= {"clients_file": clients}
            headers = {"Authorization": f"Bearer {key}"}
        command = [*TWISTD, f"--port={port}"]
        command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        environment = clean_environment(LXD_MULTI_HOSTS=json.dumps(hosts))
        log = stack.enter_context((directory / "log").open("wb"))
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        cpus = sorted(os.sched_getaffinity(0))
        ours, theirs = (cpus[0], cpus[-1]) if len(cpus) > 1 else (None, None)
        if ours is not None:
            os.sched_setaffinity(process.pid, {ours})
        try:
            running = Besieged(process, port, tls, directory / "log", (theirs, ours), headers)
            _wait(running, len(hosts))
            yield running
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
            process.wait()


def _wait(running: Besieged, hosts: int) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", running.port), 1):
            break
        assert running.process.poll() is None, f"it ended: {running.log.read_text()}"
        assert time.monotonic() < until, "nobody listens"
        time.sleep(0.05)
    honest = Honest(running.port, running.tls, headers=running.headers)
    while True:
        connection = honest.connect()
        _, shown = honest.exchange(connection, "GET", "/hosts")
        connection.close()
        if shown["summary"]["by_state"] == {"live": hosts}:
            return
        assert time.monotonic() < until, f"not all hosts are live: {shown['summary']}"
        time.sleep(0.1)
