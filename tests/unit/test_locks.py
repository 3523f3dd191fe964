"""What is installed is exactly what the lock files say, and these say what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")

_PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>[^\\]+))?\Z")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Pin:
    """One package of a lock file."""

    version: Version
    marker: str
    hashes: frozenset[str]


def locked(text: str) -> dict[str, Pin]:
    """Read a lock file. AssertionError for a line that is anything but a pin with its hashes."""
    found: dict[str, Pin] = {}
    for line in re.sub(r"\\\n", " ", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE)).splitlines():
        first, *hashes = re.split(r"\s+(?=--)", line.strip())
        pin = _PIN.match(first)
        assert pin is not None, f"is not pinned: {line}"
        assert pin["name"] == canonicalize_name(pin["name"]) not in found, f"is there twice: {line}"
        assert hashes, f"has no hash: {line}"
        assert all(_HASH.match(each) for each in hashes), f"has something else than hashes: {line}"
        found[pin["name"]] = Pin(Version(pin["version"]), (pin["marker"] or "").strip(), frozenset(hashes))
    return found


def lock(name: str) -> dict[str, Pin]:
    return locked((ROOT / name).read_text())


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def group(name: str) -> list[str]:
    """Return what a dependency group asks for, with the groups that it includes."""
    found: list[str] = []
    for each in project()["dependency-groups"][name]:
        found += [each] if isinstance(each, str) else group(each["include-group"])
    return found


def needed(asked: list[str]) -> set[str]:
    """Follow what the installed packages themselves ask for, on this machine."""
    found: set[str] = set()
    waiting = [(Requirement(each), "") for each in asked]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.add(name)
        for each in ("", *requirement.extras):
            if (name, each) not in seen:
                seen.add((name, each))
                waiting += [(Requirement(text), each) for text in metadata.requires(name) or []]
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_with_its_hashes_and_nothing_else_is_in_a_lock_file(name: str) -> None:
    assert len(lock(name)) > 10


@pytest.mark.parametrize(
    "line",
    [
        "klein>=1.0 \\\n    --hash=sha256:" + "0" * 64,
        "klein==1.0",
        "klein==1.0 \\\n    --hash=md5:" + "0" * 32,
        "klein==1.0 --hash=sha256:" + "0" * 64 + "\nklein==1.1 --hash=sha256:" + "0" * 64,
        "klein @ https://example.org/klein.whl --hash=sha256:" + "0" * 64,
        "--extra-index-url https://example.org/simple",
        "-e .",
        "-r other.lock",
    ],
)
def test_anything_else_in_a_lock_file_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        locked(line + "\n")


def test_what_the_daemon_asks_for_is_locked_in_versions_that_will_do() -> None:
    asked = [Requirement(each) for each in project()["project"]["dependencies"]]
    for pins in map(lock, LOCKS):
        wrong = [str(each) for each in asked if pins[canonicalize_name(each.name)].version not in each.specifier]
        assert wrong == []


def test_what_the_tests_and_the_build_ask_for_is_locked_in_versions_that_will_do() -> None:
    pins = lock("requirements-dev.lock")
    asked = [Requirement(each) for each in [*group("dev"), *project()["build-system"]["requires"]]]
    assert [str(each) for each in asked if pins[canonicalize_name(each.name)].version not in each.specifier] == []


def test_the_daemon_is_tested_with_the_very_files_that_are_installed_without_the_tests() -> None:
    runtime, dev = map(lock, LOCKS)
    assert {name: pin for name, pin in dev.items() if name in runtime} == runtime


def test_the_lock_file_of_the_daemon_holds_all_that_it_needs_and_nothing_more() -> None:
    pins = lock("requirements.lock")
    need = needed(project()["project"]["dependencies"])
    assert need - pins.keys() == set()
    assert {name for name in pins.keys() - need if not pins[name].marker} == set()


def test_lock_files_are_installed_by_their_hashes_and_from_no_index_of_ours() -> None:
    for path in [ROOT / "Makefile", ROOT / ".ci" / "run", *(ROOT / "scripts").iterdir(), *map(ROOT.joinpath, LOCKS)]:
        text = path.read_text()
        for line in text.splitlines():
            if re.search(r"\b(install|pip-audit)\b.*(-r|--requirement)\b.*\.lock", line):
                assert "--require-hashes" in line, f"{path.name}: {line}"
        assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host", text), path.name
