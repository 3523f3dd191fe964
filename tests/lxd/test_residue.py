"""Nothing of a real LXD or Incus outlives the tests: no process, mount, cgroup or directory, however they end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytest_twisted

from lxdsched.sandbox.certs import KeyPair
from tests.lxd import residue
from tests.lxd.daemon import LxdDaemon
from tests.lxd.driver import LxdDriver
from tests.lxd.flavour import Flavour
from tests.lxd.rest import IReactor

pytestmark = pytest.mark.real_lxd

PATIENCE_SECONDS = 20.0

SESSION = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from tests.lxd.daemon import LxdDaemon
from tests.lxd.flavour import INCUS, LXD

async def main(reactor):
    flavour = {each.name: each for each in (LXD, INCUS)}[sys.argv[1]]
    daemon = LxdDaemon(reactor, "orphan", flavour=flavour)
    await daemon.start()
    print(daemon.directory, flush=True)
    await Deferred()

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


def leftovers(directory: Path) -> list[object]:
    logs = [log for log in [directory.with_suffix(".log")] if log.exists()]
    known = residue.processes(directory) | named(directory)
    return [*logs, *residue.trees(directory), *known, *residue.mounts(directory)]


def named(directory: Path) -> frozenset[int]:
    """The processes with the directory in their command line: found without asking what is under test."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(directory) in path.read_bytes():
                found.add(int(path.parent.name))
    return frozenset(found)


def container_groups(prefix: str) -> list[Path]:
    return [path for path in residue.CGROUPS.rglob(f"lxc.*.{prefix}*") if path.is_dir()]


async def with_residents(daemon: LxdDaemon, reactor: IReactor, admin: KeyPair, prefix: str) -> None:
    """Start the daemon, one instance that runs and one that is frozen."""
    await daemon.start()
    await daemon.trust(admin.cert_pem, "admin")
    driver = LxdDriver(daemon.url, reactor, admin, daemon.fingerprint)
    for name in (f"{prefix}-running", f"{prefix}-frozen"):
        await driver.create(name, startable=True)
        await driver.start(name)
    await driver.freeze(f"{prefix}-frozen")
    await driver.aclose()


@pytest.mark.parametrize("state", ["running", "suspended", "killed"])
@pytest_twisted.ensureDeferred
async def test_cleanup_leaves_nothing_of_a_daemon_with_instances(
    flavour: Flavour, lxd_reactor: IReactor, lxd_admin: KeyPair, state: str
) -> None:
    daemon, prefix = LxdDaemon(lxd_reactor, "doomed", flavour=flavour), f"res-{os.getpid()}"
    try:
        await with_residents(daemon, lxd_reactor, lxd_admin, prefix)
        assert len(residue.processes(daemon.directory)) >= 5
        assert container_groups(prefix)
        if state == "suspended":
            daemon.suspend()
        elif state == "killed":
            await daemon.kill()
    finally:
        daemon.cleanup()
    assert leftovers(daemon.directory) == []
    assert container_groups(prefix) == []


@pytest_twisted.ensureDeferred
async def test_cleanup_finds_containers_whose_monitor_has_died(
    flavour: Flavour, lxd_reactor: IReactor, lxd_admin: KeyPair
) -> None:
    daemon, prefix = LxdDaemon(lxd_reactor, "doomed", flavour=flavour), f"orphan-{os.getpid()}"
    try:
        await with_residents(daemon, lxd_reactor, lxd_admin, prefix)
        found = residue.processes(daemon.directory)
        for pid in [pid for pid in found if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == flavour.daemon]:
            os.kill(pid, signal.SIGKILL)
    finally:
        daemon.cleanup()
    assert leftovers(daemon.directory) == []
    assert container_groups(prefix) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_test_session_that_is_killed_leaves_nothing_behind(flavour: Flavour, number: signal.Signals) -> None:
    session = subprocess.Popen([sys.executable, "-c", SESSION, flavour.name], stdout=subprocess.PIPE, text=True)
    with session:
        assert session.stdout is not None
        directory = Path(session.stdout.readline().strip())
        assert len(leftovers(directory)) > 3
        session.send_signal(number)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while leftovers(directory) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert leftovers(directory) == []
