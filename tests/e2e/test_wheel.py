"""What is given away: the wheel and the sdist, and the daemon that the wheel installs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

from lxdsched import __version__
from tests.e2e.daemon import BIN, LXDSCHED, PATIENCE, clean_environment, free_port, run, wait_for_port
from tests.e2e.daemon import Daemon as Asked

ROOT = Path(__file__).parents[2]
LONG_AGO = {"SOURCE_DATE_EPOCH": "1700000000", "BUILD_PYTHON": sys.executable}


def done(*command: str | Path, **environment: str) -> str:
    """Run a program from /, which must succeed; return what it says."""
    ended = subprocess.run(
        command,
        env=clean_environment(**environment),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


@dataclass(frozen=True)
class Built:
    """A wheel and an sdist."""

    wheel: Path
    sdist: Path

    def contents(self) -> dict[str, bytes]:
        """Return the files of the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return {each: archive.read(each) for each in archive.namelist()}

    def metadata(self) -> Any:
        """Return what the wheel says of itself."""
        return Parser().parsestr(self.contents()[f"lxdsched-{__version__}.dist-info/METADATA"].decode())


def build(directory: Path, root: Path = ROOT, **environment: str) -> Built:
    """Build both, as `make dist` does."""
    done(root / "scripts" / "dist", directory, **{**LONG_AGO, **environment})
    ((wheel,), (sdist,)) = directory.glob("*.whl"), directory.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("dist"))


def lend(packages: Path, to: Path) -> None:
    """Put into a directory for packages all that is in another, but for what an installation of ours has left there."""
    for each in packages.iterdir():
        if each.name == "twisted" or (each.name == "plugins" and to.name == "twisted"):
            (to / each.name).mkdir()
            lend(each, to / each.name)
        elif "lxdsched" not in each.name and each.name not in {"dropin.cache", "__pycache__"}:
            (to / each.name).symlink_to(each)


@pytest.fixture(scope="module")
def bin_directory(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, to which the tests' own lends the dependencies."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    done(sys.executable, "-m", "venv", "--without-pip", environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    lend(Path(sysconfig.get_path("purelib")), packages)
    python = str(environment / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    done(*pip, "install", "--quiet", "--no-deps", "--no-index", built.wheel)
    twistd = environment / "bin" / "twistd"
    twistd.write_text(f"#!{python}\n" + (BIN / "twistd").read_text().partition("\n")[2])
    twistd.chmod(0o755)
    return environment / "bin"


@pytest.fixture
def unwritable(bin_directory: Path) -> Iterator[list[str]]:
    """The command within which nobody may write where the wheel is installed, and nothing remembers its plugins."""
    plugins = next(bin_directory.parent.glob("lib/python*/site-packages/twisted/plugins"))
    (plugins / "dropin.cache").unlink(missing_ok=True)
    plugins.chmod(0o555)
    # For root the mode of a directory means nothing as long as it has this capability.
    yield ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    plugins.chmod(0o755)
    assert not (plugins / "dropin.cache").exists()


@pytest.fixture(scope="module")
def hosts() -> Iterator[str]:
    """The LXD_MULTI_HOSTS of a simulated host."""
    with run([LXDSCHED, "sandbox", "--hosts", "1"], clean_environment()) as sandbox:
        (assignment,) = shlex.split(sandbox.wait_for("LXD_MULTI_HOSTS="))
        yield assignment.partition("=")[2]


def test_the_wheel_holds_the_whole_package_and_nothing_else(built: Built) -> None:
    ours = {
        str(path.relative_to(ROOT))
        for top in ("lxdsched", "twisted")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.name != "dropin.cache"
    }
    held = {each for each in built.contents() if ".dist-info/" not in each}
    assert held == ours
    assert {"lxdsched/py.typed", "lxdsched/ledger/ledger.lua", "twisted/plugins/lxdsched_plugin.py"} <= held


def test_the_wheel_says_what_it_is_and_under_which_licence(built: Built) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = built.metadata()
    assert (said["Name"], said["Version"], said["License-Expression"]) == ("lxdsched", __version__, "Apache-2.0")
    assert said["Requires-Python"] == project["requires-python"]
    assert len(said.get_all("Requires-Dist")) == len(project["dependencies"])
    assert said.get_payload() == (ROOT / "README.md").read_text()
    licence = built.contents()[f"lxdsched-{__version__}.dist-info/licenses/LICENSE"]
    assert licence == (ROOT / "LICENSE").read_bytes()


def tracked(root: Path) -> set[str]:
    """Name the files of this checkout; none where it is no checkout."""
    if not (root / ".git").exists():
        return set()
    listed = done("git", "-c", f"safe.directory={root}", "-C", root, "ls-files", "-z")
    return {each for each in listed.split("\0") if each and (root / each).exists()}


def test_the_sdist_holds_everything_that_is_kept_under_version_control(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        held = {each.name.partition("/")[2] for each in archive if not each.isdir()}
        assert archive.getmember(f"lxdsched-{__version__}/scripts/python").mode & 0o111
    assert tracked(ROOT) - held == set()
    assert {"Makefile", "requirements.lock", "scripts/dist", "tests/e2e/test_wheel.py", "docs/development.md"} <= held


def test_the_sdist_builds_itself_and_the_same_wheel_to_the_byte_under_another_umask(
    built: Built, tmp_path: Path
) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    done("chmod", "-R", "go-rwx", unpacked)
    again = build(tmp_path / "dist", unpacked)
    assert again.wheel.read_bytes() == built.wheel.read_bytes()
    assert again.sdist.read_bytes() == built.sdist.read_bytes()


def test_twistd_knows_the_daemon_of_the_wheel_wherever_it_is_started(bin_directory: Path) -> None:
    assert "    lxdsched " in done(bin_directory / "twistd", "--help")
    assert "--over-commit-percent" in done(bin_directory / "twistd", "lxdsched", "--help")
    assert done(bin_directory / "lxdsched", "--version") == f"lxdsched {__version__}\n"
    asked = "import lxdsched, twisted.plugins.lxdsched_plugin as plugin; print(lxdsched.__file__, plugin.__file__)"
    assert all(
        Path(each).is_relative_to(bin_directory.parent) for each in done(bin_directory / "python", "-c", asked).split()
    )


def test_the_daemon_of_the_wheel_answers_and_is_silent_of_the_cache_that_it_may_not_write(
    bin_directory: Path, unwritable: list[str], hosts: str
) -> None:
    port = free_port()
    settings: Mapping[str, str] = clean_environment(LXD_MULTI_HOSTS=hosts, LXD_MULTI_SCHEDULER_PORT=str(port))
    command = [*unwritable, str(bin_directory / "twistd"), "--nodaemon", "--pidfile=", "lxdsched"]
    with run(command, settings, Path("/")) as running:
        wait_for_port(port, running)
        status, answer = Asked(running, port).schedule()
        assert (status, answer["host"]) == (200, Asked(running, port).ask("GET", "/hosts")[1]["hosts"][0]["host"])
        running.end()
    said = "\n".join(running.lines)
    assert f"lxdsched {__version__} listens on" in said
    assert "cache" not in said
    assert '"level":"INFO"' in said
    assert '"level":"WARN"' not in said
