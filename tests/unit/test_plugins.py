"""Strategies of third parties."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = """
from twisted.plugin import IPlugin
from zope.interface import implementer
from lxdsched.strategies import IStrategy

@implementer(IPlugin, IStrategy)
class Alphabetical:
    name = {name!r}
    def key(self, view, demand):
        return tuple(view.host.encode())

alphabetical = Alphabetical()
"""

BROKEN = """
from twisted.plugin import IPlugin
from zope.interface import implementer
from lxdsched.strategies import IStrategy

@implementer(IPlugin, IStrategy)
class Broken:
    name = "broken"

broken = Broken()
"""


def found(site: Path) -> tuple[list[str], str]:
    """Say which strategies a process with this directory on its path finds, and what it says of others."""
    program = (
        "import sys; from twisted.logger import globalLogBeginner, textFileLogObserver\n"
        "globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)\n"
        "from lxdsched.plugins import strategies\nprint(' '.join(strategies()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split(), done.stderr


@pytest.fixture
def install(tmp_path: Path) -> Path:
    """A directory on the path with a place for plugins, as an installed package would have it."""
    (tmp_path / "twisted" / "plugins").mkdir(parents=True)
    return tmp_path


def test_the_built_in_strategies_are_there_without_any_plugin(install: Path) -> None:
    names, said = found(install)
    assert names == ["least-allocated", "least-allocated-percent", "balanced", "most-allocated", "fewest-instances"]
    assert said == ""


def test_an_installed_plugin_adds_its_strategy(install: Path) -> None:
    (install / "twisted" / "plugins" / "alphabetical.py").write_text(PLUGIN.format(name="alphabetical"))
    assert "alphabetical" in found(install)[0]


def test_a_plugin_cannot_take_the_name_of_another_strategy(install: Path) -> None:
    (install / "twisted" / "plugins" / "impostor.py").write_text(PLUGIN.format(name="balanced"))
    names, said = found(install)
    assert names.count("balanced") == 1
    assert "strategy plugin balanced is left out: its name is taken" in said


def test_a_plugin_that_does_not_keep_to_the_interface_is_left_out_and_named(install: Path) -> None:
    (install / "twisted" / "plugins" / "broken.py").write_text(BROKEN)
    names, said = found(install)
    assert "broken" not in names
    assert "is left out" in said


@pytest.mark.parametrize("name", [None, 5, ["x"], "", "a,b"])
def test_a_plugin_without_a_proper_name_is_left_out(install: Path, name: object) -> None:
    (install / "twisted" / "plugins" / "nameless.py").write_text(PLUGIN.format(name=name))
    names, said = found(install)
    assert len(names) == 5
    assert "strategy plugin Alphabetical is left out" in said


def test_a_plugin_that_cannot_be_imported_stops_nobody(install: Path) -> None:
    (install / "twisted" / "plugins" / "wrong.py").write_text("import nonsense_that_is_not_there")
    assert "least-allocated" in found(install)[0]
