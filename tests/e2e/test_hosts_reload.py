"""SIGHUP has a running daemon take over the hosts of its configuration."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lxdsched.sandbox.certs import make_certificate
from tests.e2e.daemon import TWISTD, Daemon, clean_environment, free_port, run, wait_for_port
from tests.e2e.replicas import Fleet, simulated


class Scene:
    """A daemon with a configuration file."""

    def __init__(self, file: Path, daemon: Daemon) -> None:
        self.file = file
        self.daemon = daemon

    def reload(self, text: str, said: str) -> str:
        """Write the file, have the daemon read it again, and wait until it has said something; return the line."""
        self.file.write_text(text)
        self.daemon.running.process.send_signal(signal.SIGHUP)
        return self.daemon.running.wait_for(said)

    def hosts(self) -> dict[str, Any]:
        """Return what is shown of each host."""
        status, answer = self.daemon.ask("GET", "/hosts")
        assert status == 200
        return {each["host"]: each for each in answer["hosts"]}

    def until(self, names: Sequence[str]) -> None:
        """Wait until these hosts are there and answer."""

        def found() -> list[tuple[str, bool]]:
            return [(host, shown["state"] in {"live", "polled"}) for host, shown in self.hosts().items()]

        self.daemon.soon(found, [(name, True) for name in names])


def written(hosts: Sequence[Mapping[str, Any]], **settings: object) -> str:
    """Write a configuration."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    for host in hosts:
        lines += ["[[hosts]]", *(f"{name} = {json.dumps(value)}" for name, value in host.items())]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with simulated(3, 8) as it:
        yield it


@contextmanager
def started(fleet: Fleet, directory: Path) -> Iterator[Scene]:
    file = directory / "lxdsched.toml"
    file.touch(mode=0o600)
    file.write_text(written(fleet.hosts[:2]))
    port = free_port()
    with run([*TWISTD, f"--config={file}", f"--port={port}"], clean_environment(), directory) as running:
        wait_for_port(port, running)
        scene = Scene(file, Daemon(running, port))
        scene.until(fleet.names[:2])
        yield scene
        assert not [line for line in running.lines if "Traceback" in line]


def test_hosts_come_change_and_go_while_the_daemon_answers(fleet: Fleet, tmp_path: Path) -> None:
    first, second, third = fleet.hosts
    with started(fleet, tmp_path) as scene:
        said = scene.reload(written([first, second, third]), "new and")
        assert "hosts: 3, of which 1 new and 0 changed; 0 gone" in said
        scene.until(fleet.names)

        fleet.create(first["host"], "a", 2)
        fleet.create(second["host"], "a", 2)
        status, answer = scene.daemon.schedule()
        assert (status, answer["host"]) == (200, third["host"])

        said = scene.reload(written([{**first, "over_commit_percent": 400}, third]), "new and")
        assert "hosts: 2, of which 0 new and 1 changed; 1 gone" in said
        scene.until([first["host"], third["host"]])
        scene.daemon.soon(lambda: scene.daemon.would_choose(20), first["host"])
        status, answer = scene.daemon.schedule(20)
        assert (status, answer["host"]) == (200, first["host"])
        assert "reservation" in answer
        reservations = scene.daemon.ask("GET", "/reservations")[1]["reservations"]
        assert {each["host"] for each in reservations} == {first["host"], third["host"]}
        assert second["host"] not in scene.hosts()

        said = scene.reload(scene.file.read_text(), "new and")
        assert "hosts: 2, of which 0 new and 0 changed; 0 gone" in said


def test_another_certificate_of_ours_is_taken_over_and_its_end_is_watched(fleet: Fleet, tmp_path: Path) -> None:
    certificate, key = make_certificate("renewed", now=datetime.now(UTC), client=True).write(tmp_path, "renewed")
    with started(fleet, tmp_path) as scene:
        renewed = {**fleet.hosts[0], "client_cert": str(certificate), "client_key": str(key)}
        scene.reload(written([renewed]), "new and")
        # The host does not know this one.
        scene.daemon.soon(lambda: scene.hosts()[fleet.names[0]]["state"], "untrusted")
        shown = scene.daemon.ask("GET", "/hosts")[1]["certificates"]
        assert [each["file"] for each in shown] == [str(certificate)]


def test_a_file_that_cannot_be_used_changes_nothing_and_the_log_says_why(fleet: Fleet, tmp_path: Path) -> None:
    with started(fleet, tmp_path) as scene:
        said = scene.reload(written(fleet.hosts[:1]) + "[[hosts]]\n", "stay as they are")
        assert "host: is missing" in said or "hosts" in said
        assert list(scene.hosts()) == fleet.names[:2]
        scene.reload("[[hosts", "stay as they are")
        assert list(scene.hosts()) == fleet.names[:2]
        scene.reload(written(fleet.hosts[1:]), "new and")
        scene.until(fleet.names[1:])


def test_what_is_read_at_the_start_alone_is_named(fleet: Fleet, tmp_path: Path) -> None:
    with started(fleet, tmp_path) as scene:
        text = written(fleet.hosts, strategy="balanced", reservation_ttl=60, over_commit_percent=200)
        said = scene.reload(text, "at the next start alone")
        assert "reservation_ttl, strategy" in said
        scene.until(fleet.names)
