"""The image and compose.yaml fit what they are made of. That they work is for `make image-test`, where Docker is."""

from __future__ import annotations

import json
import os
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from lxdsched.config import SETTINGS
from lxdsched.config.load import CONFIG_VARIABLE
from tests.unit.conftest import configure

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "docker.md"
HIGH_AVAILABILITY = ROOT / "docs" / "high-availability.md"


def compose_environment() -> dict[str, Any]:
    """Return what compose.yaml sets for a replica, as it is written."""
    (block,) = re.findall(r"^  environment:\n((?:    .*\n)+)", (ROOT / "compose.yaml").read_text(), re.MULTILINE)
    return dict(re.findall(r"^    (\w+): (.*)$", block, re.MULTILINE))


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "docs/docker.md", "scripts/image-checks"])
def test_only_settings_that_exist_are_named(name: str) -> None:
    known = {each.variable for each in SETTINGS} | {CONFIG_VARIABLE}
    named = set(re.findall(r"\bLXD_MULTI_\w+[A-Z]\b", (ROOT / name).read_text()))
    assert named - known <= {"LXD_MULTI_SCHEDULER"}
    assert named & known


def test_what_compose_sets_is_a_good_configuration(entry: dict[str, Any], tmp_path: Path) -> None:
    environment = compose_environment()
    assert environment.pop("LXD_MULTI_HOSTS").startswith("${LXD_MULTI_HOSTS:?")
    assert environment.pop("LXD_MULTI_OVER_COMMIT_PERCENT") == "${LXD_MULTI_OVER_COMMIT_PERCENT:-100}"
    replaced: dict[str, Any] = {
        "LXD_MULTI_SCHEDULER_CLIENT_CERT": entry["client_cert"],
        "LXD_MULTI_SCHEDULER_CLIENT_KEY": entry["client_key"],
        "LXD_MULTI_SCHEDULER_STATE_DIRECTORY": str(tmp_path / "state"),
    }
    assert {f"/run/secrets/client.{each}" for each in ("crt", "key")} == {
        environment[name] for name in replaced if "CLIENT" in name
    }
    config = configure([{"host": entry["host"]}], **environment | replaced)
    assert config.redis is not None
    assert config.bounds.rate_per_peer == 0


def test_an_interface_that_is_set_to_nothing_makes_room_for_an_endpoint(entry: dict[str, Any]) -> None:
    (interface,) = re.findall(r"LXD_MULTI_SCHEDULER_INTERFACE=(\S+)", (ROOT / "Dockerfile").read_text())
    assert (
        configure([entry], LXD_MULTI_SCHEDULER_INTERFACE=interface).listening.endpoint
        == f"tcp:8080:interface={interface}"
    )
    both: dict[str, Any] = {"LXD_MULTI_SCHEDULER_INTERFACE": "", "LXD_MULTI_SCHEDULER_ENDPOINT": "unix:/run/x"}
    assert configure([entry], **both).listening.endpoint.startswith("unix:/run/x")


def test_compose_waits_longer_for_a_replica_than_that_waits_for_requests() -> None:
    (grace,) = re.findall(r"stop_grace_period: (\d+)s", (ROOT / "compose.yaml").read_text())
    (timeout,) = (each.default for each in SETTINGS if each.name == "stop_timeout")
    assert isinstance(timeout, float)
    assert int(grace) > timeout


def test_haproxy_is_configured_as_the_page_on_high_availability_says() -> None:
    def lines(text: str) -> set[str]:
        return {line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")}

    (page,) = re.findall(r"^```haproxy\n(.*?)^```$", HIGH_AVAILABILITY.read_text(), re.DOTALL | re.MULTILINE)
    ours = (ROOT / "compose" / "haproxy.cfg").read_text()
    missing = lines(page) - lines(ours)
    assert {line.split()[0] for line in missing} <= {"stats", "server", "default-server"}
    (default,) = (line for line in missing if line.startswith("default-server"))
    assert f"{default} resolvers docker" in ours


def test_what_builds_the_wheel_is_locked_with_all_that_it_needs() -> None:
    printed = subprocess.run([ROOT / "scripts" / "build-lock"], capture_output=True, text=True, check=True).stdout
    needed: set[str] = set()
    waiting = ["hatchling"]
    while waiting:
        needed.add(name := waiting.pop())
        requirements = (Requirement(each) for each in metadata.requires(name) or ())
        waiting += [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
        waiting = [each for each in waiting if each not in needed]
    assert set(re.findall(r"^([a-z-]+)==", printed, re.MULTILINE)) == needed
    assert printed.count("--hash=sha256:") >= len(needed)


def test_what_the_wheel_is_made_of_is_let_into_the_build() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"lxdsched", "twisted", "README.md", "LICENSE", "pyproject.toml", "requirements.lock"} <= allowed
    assert all((ROOT / each).exists() for each in allowed)
    assert {each for each in allowed if each.startswith("scripts/")} == set(
        re.findall(r"scripts/\S+", re.sub(r"COPY .*", "", (ROOT / "Dockerfile").read_text()))
    )
    assert all(os.access(ROOT / each, os.X_OK) for each in allowed if each.startswith("scripts/"))


def test_the_page_shows_hosts_that_are_json() -> None:
    for shown in re.findall(r"LXD_MULTI_HOSTS='?(\[.*\])'?", PAGE.read_text()):
        assert all(each["host"].startswith("https://") for each in json.loads(shown))
