"""Trust on first use, by the daemon and `lxdsched trust` together: restarts, changes, and a store in trouble."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lxdsched.sandbox.certs import KeyPair, make_certificate
from tests.e2e.daemon import (
    LXDSCHED,
    PATIENCE,
    TOLD_TO_END,
    TWISTD,
    Daemon,
    clean_environment,
    daemon,
    faulty,
    free_port,
    run,
)

NOW = datetime.now(UTC)
PAIRS = {name: make_certificate("node-1", now=NOW) for name in ("old", "new")}
OLD, NEW = (PAIRS[name].fingerprint for name in ("old", "new"))
LIMITED = """
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a program that can write no file beyond a few bytes."""


class Site:
    """A host that can be installed anew, and the state directory of the daemon that looks at it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.file = self.state / "trust.json"
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        pairs: dict[str, KeyPair] = {"client": make_certificate("scheduler", now=NOW, client=True), **PAIRS}
        for name, pair in pairs.items():
            pair.write(directory, name)
        self.hosts = [
            {
                "host": self.url,
                "client_cert": str(directory / "client.crt"),
                "client_key": str(directory / "client.key"),
            }
        ]

    @contextmanager
    def host(self, name: str) -> Iterator[None]:
        """Run the host, with one of its certificates."""
        command = [sys.executable, "-m", "tests.e2e.one_host", str(self.port), str(self.directory), name]
        with run(command, clean_environment(), Path(__file__).parents[2]) as running:
            running.wait_for("ready")
            yield

    @contextmanager
    def daemon(self, within: Sequence[str] = (), **environment: str) -> Iterator[Daemon]:
        """Run the daemon, brisk in looking again; it must end well."""
        settings: dict[str, Any] = {
            "LXD_MULTI_SCHEDULER_STATE_DIRECTORY": str(self.state),
            "LXD_MULTI_SCHEDULER_PROBE_INTERVAL": "0.1",
            "LXD_MULTI_SCHEDULER_PROBE_INTERVAL_MAX": "0.5",
        }
        with daemon(self.hosts, within=within, **(settings | environment)) as running:
            yield running
            assert running.running.end() == TOLD_TO_END
            assert not any("Traceback" in line for line in running.running.lines)

    def chosen(self, running: Daemon) -> None:
        running.soon(running.would_choose, self.url)

    def refused(self, running: Daemon) -> str:
        running.soon(lambda: running.host(self.url)["state"], "untrusted")
        assert running.would_choose() is None
        return str(running.host(self.url)["reason"])

    def remembered(self, running: Daemon, fingerprint: str = OLD) -> None:
        running.soon(lambda: [each["fingerprint"] for each in self.known()], [fingerprint])

    def command(self, *arguments: str) -> str:
        """Run `lxdsched trust`; return what it says."""
        done = subprocess.run(
            [LXDSCHED, "trust", arguments[0], "--state-directory", str(self.state), *arguments[1:]],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def known(self) -> list[dict[str, Any]]:
        found = json.loads(self.command("list", "--json"))
        assert isinstance(found, list)
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_change_while_the_daemon_is_down_is_refused_until_it_is_accepted(site: Site) -> None:
    with site.host("old"), site.daemon() as running:
        site.chosen(running)
    assert stat.S_IMODE(site.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(site.file.stat().st_mode) == 0o600
    with site.host("new"):
        with site.daemon() as running:
            assert site.refused(running) == (
                f"its certificate has changed: it shows {NEW}, trusted is {OLD}; "
                f"if the change was meant, `lxdsched trust accept {site.url}`"
            )
        with site.daemon() as running:
            site.refused(running)
            running.soon(lambda: NEW in site.command("list"), True)
            site.command("accept", site.url, "--fingerprint", NEW)
            site.chosen(running)
        with site.daemon() as running:
            site.chosen(running)
    with site.host("old"), site.daemon() as running:
        assert f"it shows {OLD}, trusted is {NEW}" in site.refused(running)


def test_a_change_while_the_daemon_runs_is_refused_until_it_is_accepted(site: Site) -> None:
    with site.daemon() as running:
        with site.host("old"):
            site.chosen(running)
            site.remembered(running)
        with site.host("new"):
            assert f"it shows {NEW}, trusted is {OLD}" in site.refused(running)
            running.soon(lambda: site.known()[0]["offered"] is not None, True)
            assert site.known()[0]["offered"]["fingerprint"] == NEW
            site.command("accept", f"127.0.0.1:{site.port}", "--fingerprint", NEW)
            site.chosen(running)
            assert site.known()[0]["offered"] is None


def test_a_host_can_be_forgotten_while_the_daemon_runs(site: Site) -> None:
    with site.daemon() as running:
        with site.host("old"):
            site.chosen(running)
            site.remembered(running)
        with site.host("new"):
            site.refused(running)
            site.command("forget", site.url)
            site.chosen(running)
            site.remembered(running, NEW)


def test_a_host_can_be_trusted_before_it_is_met(site: Site) -> None:
    site.command("accept", site.url, "--fingerprint", NEW)
    with site.daemon() as running:
        with site.host("old"):
            assert f"it shows {OLD}, trusted is {NEW}" in site.refused(running)
        with site.host("new"):
            site.chosen(running)


def test_two_daemons_may_share_a_directory(site: Site) -> None:
    with site.daemon() as one, site.daemon() as other:
        with site.host("old"):
            site.chosen(one)
            site.chosen(other)
            site.remembered(one)
        with site.host("new"):
            site.refused(one)
            site.refused(other)
            one.soon(lambda: site.known()[0]["offered"] is not None, True)
            site.command("accept", site.url, "--fingerprint", NEW)
            site.chosen(one)
            site.chosen(other)


def test_without_a_directory_a_restart_forgets_and_a_warning_says_so(site: Site) -> None:
    without = {"LXD_MULTI_SCHEDULER_STATE_DIRECTORY": ""}
    with site.host("old"), site.daemon(**without) as running:
        running.running.wait_for("of 1 host trusted on first use: set state_directory")
        site.chosen(running)
    with site.host("new"), site.daemon(**without) as running:
        site.chosen(running)
    assert not site.state.exists()


def test_a_directory_that_cannot_be_used_keeps_the_daemon_from_starting(site: Site) -> None:
    with site.host("old"), site.daemon() as running:
        site.chosen(running)
    environment = clean_environment(
        LXD_MULTI_HOSTS=json.dumps(site.hosts), LXD_MULTI_SCHEDULER_STATE_DIRECTORY=str(site.state)
    )
    site.file.write_bytes(site.file.read_bytes()[:-5])
    for command in (TWISTD, [LXDSCHED, "check"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert done.returncode == faulty(command)
        assert f"LXD_MULTI_SCHEDULER_STATE_DIRECTORY: {site.file}: is damaged" in done.stderr
        assert "Traceback" not in done.stderr


def test_damage_while_the_daemon_runs_is_survived(site: Site) -> None:
    with site.daemon() as running:
        with site.host("old"):
            site.chosen(running)
            site.remembered(running)
            good = site.file.read_bytes()
            site.file.write_bytes(b"\0" * len(good))
            running.running.wait_for("who is trusted cannot be read")
            assert running.would_choose() == site.url
        with site.host("new"):
            assert f"it shows {NEW}, trusted is {OLD}" in site.refused(running)
            site.file.write_bytes(good)
            running.running.wait_for("can be read again")
            site.refused(running)
    assert site.known()[0]["fingerprint"] == OLD


def test_a_full_disk_costs_nothing_but_an_error_in_the_log(site: Site) -> None:
    with site.host("old"), site.daemon(within=[sys.executable, "-c", LIMITED]) as running:
        site.chosen(running)
        running.running.wait_for(f"who is trusted cannot be remembered: {site.file}: File too large")
        assert running.would_choose() == site.url
        soft, hard = resource.prlimit(running.running.process.pid, resource.RLIMIT_FSIZE)
        assert soft == 50
        resource.prlimit(running.running.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert site.known()[0]["fingerprint"] == OLD  # it was tried again at the end


@pytest.fixture
def full(site: Site) -> Iterator[None]:
    """A state directory on a file system of its own, which has no room."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    site.state.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(site.state)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(site.state)], check=True)


def test_a_disk_that_has_room_again_is_written_to(site: Site, full: None) -> None:
    filler = site.state / "filler"
    with site.daemon() as running:
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(1024**2))
        with site.host("old"):
            site.chosen(running)
            running.running.wait_for(f"who is trusted cannot be remembered: {site.file}: No space left on device")
            filler.unlink()
    assert site.known()[0]["fingerprint"] == OLD


def test_a_directory_that_becomes_read_only_costs_nothing_but_an_error_in_the_log(site: Site, full: None) -> None:
    with site.daemon() as running:
        subprocess.run(["mount", "-o", "remount,ro", str(site.state)], check=True)
        with site.host("old"):
            site.chosen(running)
            running.running.wait_for("who is trusted cannot be remembered: ")
            assert "Read-only file system" in running.running.lines[-1]
        with site.host("new"):
            site.refused(running)
