"""What a release is made with: what it refuses, what it undoes, and what it writes into its files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lxdsched import __version__

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
NEWER = "999.0.0"
SOMEBODY = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "A B",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A B",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}
LOCK = """\
klein==24.8.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via
    #   -c requirements-dev.lock
    #   lxdsched (pyproject.toml)
twisted==26.10.0 ; sys_platform != 'win32' \\
    --hash=sha256:cc
    # via klein
"""


class Checkout:
    """A repository with a copy of what a release is made of."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(SCRIPTS, directory / "scripts")
        for each in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "requirements.lock"):
            shutil.copy(ROOT / each, directory / each)
        for each in ("lxdsched/__init__.py", "twisted/plugins/lxdsched_plugin.py"):
            (directory / each).parent.mkdir(parents=True)
            shutil.copy(ROOT / each, directory / each)
        (directory / "news").mkdir()
        (directory / ".gitignore").write_text(".venv\ndist/\n__pycache__/\n")
        (directory / ".venv").symlink_to(sys.prefix)
        self.git("init", "--quiet", "--initial-branch=main")
        self.news("+thing.feature.md", "There is a thing.")

    def git(self, *arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"]} | SOMEBODY
        return subprocess.run(
            ["git", *arguments], cwd=self.directory, env=environment, check=True, capture_output=True, text=True
        ).stdout

    def news(self, name: str, text: str) -> None:
        """Commit a fragment."""
        (self.directory / "news" / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")

    def refused(self, version: str, **environment: str) -> str:
        """Try a release, which must fail and leave everything as it was; return what is said."""
        before = self.state()
        ended = subprocess.run(
            [str(self.directory / "scripts" / "release"), version],
            env=os.environ | SOMEBODY | {"PIP_NO_INDEX": "1"} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 1
        assert self.state() == before
        return ended.stderr

    def state(self) -> tuple[str, ...]:
        listed = sorted(str(each) for each in self.directory.glob("dist/*"))
        asked = ["rev-parse HEAD", "tag --list", "status --porcelain", "worktree list", "branch --list"]
        return (*(self.git(*each.split()) for each in asked), *listed)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_what_is_no_version_is_not_released(checkout: Checkout) -> None:
    for version in ("", "1", "1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.2.3-rc1", "1.2.3 --force"):
        assert "say which" in checkout.refused(version)


def test_a_tree_with_anything_uncommitted_is_not_released(checkout: Checkout) -> None:
    (checkout.directory / "client.key").write_text("secret")
    assert "?? client.key" in checkout.refused(NEWER)
    checkout.git("add", "client.key")
    assert "A  client.key" in checkout.refused(NEWER)


@pytest.mark.parametrize("tag", [NEWER, "999.0.1", "1000.0.0rc1"])
def test_a_version_that_is_not_newer_than_every_tag_is_not_released(checkout: Checkout, tag: str) -> None:
    checkout.git("tag", "vague")
    checkout.git("tag", f"v{tag}")
    assert f"{NEWER} is not newer than {tag}" in checkout.refused(NEWER)


def test_a_version_that_is_older_than_what_the_code_says_is_not_released(checkout: Checkout) -> None:
    assert f"0.0.1 is older than {__version__}" in checkout.refused("0.0.1")


def test_without_news_or_with_some_that_would_get_lost_nothing_is_released(checkout: Checkout) -> None:
    checkout.news("+other.md", "Of no kind.")
    assert "news/+other.md is no fragment" in checkout.refused(NEWER)
    checkout.git("rm", "--quiet", "news/+other.md")
    checkout.news("+void.fix.md", "\n")
    assert "news/+void.fix.md is empty" in checkout.refused(NEWER)
    checkout.git("rm", "--quiet", "-r", "news")
    checkout.git("commit", "--quiet", "--message", "x")
    assert "there are no news" in checkout.refused(NEWER)


def test_what_is_on_no_branch_is_not_released(checkout: Checkout) -> None:
    checkout.git("checkout", "--quiet", "--detach")
    assert "no branch" in checkout.refused(NEWER)


def test_files_of_a_release_are_not_overwritten(checkout: Checkout) -> None:
    (checkout.directory / "dist" / NEWER).mkdir(parents=True)
    assert f"dist/{NEWER} is there already" in checkout.refused(NEWER)


def test_a_release_that_fails_half_way_leaves_nothing_behind(checkout: Checkout, tmp_path: Path) -> None:
    temporary = tmp_path.parent / f"{tmp_path.name}-temporary"
    temporary.mkdir()
    # A Python without cyclonedx: the commit is made by then, and the wheel is built.
    said = checkout.refused(NEWER, CYCLONEDX_PYTHON=sys.executable, TMPDIR=str(temporary))
    assert "No module named cyclonedx_py" in said
    assert said.endswith("everything is as before\n")
    assert list(temporary.iterdir()) == []


def script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPTS / name, *arguments], capture_output=True, text=True, check=False, cwd="/"
    )


BEGUN = """\
lxdsched (0.2.0) UNRELEASED; urgency=medium

  * Begun.

 -- A B <a@example.org>  Thu, 01 Jan 2026 00:00:00 +0000

"""
OLD = """\
lxdsched (0.1.0) bookworm; urgency=medium

  * First package.

 -- A B <a@example.org>  Thu, 01 Jan 2026 00:00:00 +0000
"""
NOTES = f"""\
## lxdsched 0.2.0 (2026-01-02)

### Features

- One
  thing.
- {"long " * 20}`--end`

### Fixes

- A fix.
"""
ENTRY = """\
lxdsched (0.2.0) bookworm; urgency=medium

  * Features: One thing.
  * long long long long long long long long long long long long long long long
    long long long long long `--end`
  * Fixes: A fix.

 -- C D <c@example.org>  Fri, 02 Jan 2026 00:00:00 +0000
"""


@pytest.mark.parametrize("before", [OLD, BEGUN + OLD, ENTRY + "\n" + OLD])
def test_debians_changelog_tells_the_news_once_above_those_of_earlier_releases(tmp_path: Path, before: str) -> None:
    changelog, notes = tmp_path / "changelog", tmp_path / "notes"
    changelog.write_text(before)
    notes.write_text(NOTES)
    ended = script("debian_changelog.py", changelog, "0.2.0", notes, "C D <c@example.org>", "1767312000")
    assert ended.returncode == 0, ended.stderr
    assert changelog.read_text() == ENTRY + "\n" + OLD


def bill() -> dict[str, Any]:
    """Return what cyclonedx-py makes of that lock file, as far as it is looked at."""

    def component(name: str, version: str, *hashes: str) -> dict[str, Any]:
        told = [{"alg": "SHA-256", "content": each} for each in hashes]
        return {
            "name": name,
            "version": version,
            "bom-ref": f"ref-{name}",
            "description": f"requirements line 1: {name}    --hash=sha256:aa",
            "externalReferences": [{"type": "distribution", "hashes": told}],
        }

    return {
        "metadata": {"component": {"name": "lxdsched", "version": "1.0.0", "bom-ref": "root"}},
        "components": [component("klein", "24.8.0", "aa", "bb"), component("twisted", "26.10.0", "cc")],
    }


def finished(directory: Path, made: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    (directory / "bill").write_text(json.dumps(made))
    (directory / "lock").write_text(LOCK)
    return script("finish_sbom.py", directory / "bill", directory / "lock", "lxdsched==1.0.0")


def test_the_bill_of_materials_says_who_asks_for_what(tmp_path: Path) -> None:
    told = json.loads(finished(tmp_path, bill()).stdout)
    assert told["dependencies"] == [
        {"ref": "ref-klein", "dependsOn": ["ref-twisted"]},
        {"ref": "ref-twisted"},
        {"ref": "root", "dependsOn": ["ref-klein"]},
    ]
    assert told["components"][0]["description"] == "requirements line 1: klein"


def test_a_bill_of_materials_that_is_not_as_the_lock_file_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    made = bill()
    made["metadata"]["component"]["version"] = "0.9.0"
    klein, twisted = made["components"]
    klein["externalReferences"][0]["hashes"].pop()
    twisted["version"] = "26.4.0"
    made["components"] = [klein, twisted, klein | {"name": "six"}]
    ended = finished(tmp_path, made)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[1:] == [
        "it is about lxdsched==0.9.0, not lxdsched==1.0.0",
        "six is not locked",
        "klein has other hashes",
        "twisted is 26.4.0 there, 26.10.0 in the lock file",
    ]
    made["components"] = [klein, klein]
    ended = finished(tmp_path, made)
    assert {"klein is there twice", "twisted is missing"} <= set(ended.stderr.splitlines())
