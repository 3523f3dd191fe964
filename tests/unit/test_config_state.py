"""Where the state directory is found, and when it cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lxdsched.config import SETTINGS, ConfigError, Sources, find
from lxdsched.config.state import find_state_directory
from tests.unit.conftest import configure, faults

SETTING = next(each for each in SETTINGS if each.name == "state_directory")
VARIABLE = "LXD_MULTI_SCHEDULER_STATE_DIRECTORY"


def variable(value: object) -> dict[str, Any]:
    """Set it in the environment."""
    return {VARIABLE: str(value)}


def test_without_one_nothing_is_remembered_and_a_warning_says_so(entry: dict[str, Any]) -> None:
    config = configure([entry, entry | {"host": "pinned", "fingerprint": "ab" * 32}])
    assert config.state_directory is None
    assert config.warnings == (
        "a restart forgets the certificates of 1 host trusted on first use: set state_directory to have "
        "them remembered, or pin them by fingerprint",
    )


def test_where_no_host_is_trusted_on_first_use_nothing_is_warned_of(entry: dict[str, Any]) -> None:
    assert configure([entry | {"fingerprint": "ab" * 32}]).warnings == ()


def test_systemds_is_taken_where_none_is_set(entry: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert configure([entry], STATE_DIRECTORY="").state_directory is None
    config = configure([entry], STATE_DIRECTORY=f"{tmp_path}/a:{tmp_path}/b")
    assert (config.state_directory, config.warnings) == (f"{tmp_path}/a", ())
    own = configure([entry], STATE_DIRECTORY=f"{tmp_path}/a", **variable(f"{tmp_path}/b"))
    assert own.state_directory == f"{tmp_path}/b"


def test_to_look_at_the_configuration_makes_no_directory(entry: dict[str, Any], tmp_path: Path) -> None:
    assert configure([entry], options={"state-directory": f"{tmp_path}/new"}).state_directory == f"{tmp_path}/new"
    assert list(tmp_path.iterdir()) == []


def test_it_is_a_whole_path_whatever_becomes_the_working_directory(
    entry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert configure([entry], **variable("state")).state_directory == f"{tmp_path}/state"


def test_what_keeps_it_from_being_used_is_a_fault(entry: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert faults([entry], **variable(f"{tmp_path}/file")) == [f"{VARIABLE}: {tmp_path}/file: Not a directory"]
    assert faults([entry], STATE_DIRECTORY=f"{tmp_path}/a/b") == [
        f"STATE_DIRECTORY: {tmp_path}/a/b: cannot be made: there is no directory {tmp_path}/a"
    ]
    assert faults([entry], options={"state-directory": ""}) == ["--state-directory: is '', not a text"]
    assert faults([entry], options={"state-directory": "a\0b"}) == ["--state-directory: embedded null byte"]
    tmp_path.chmod(0o777)
    assert faults([entry], **variable(tmp_path)) == [
        f"{VARIABLE}: {tmp_path}: others than its owner may write to it: chmod go-w {tmp_path}"
    ]


def test_a_store_that_is_damaged_is_a_fault(entry: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_bytes(b"")
    (fault,) = faults([entry], **variable(tmp_path))
    assert fault.startswith(f"{VARIABLE}: {tmp_path}/trust.json: is damaged: ")


def found(
    options: dict[str, str] | None = None, file: Path | None = None, **environment: Any
) -> tuple[str, str | None]:
    sources = Sources(options or {}, environment, str(file) if file else None)
    return find_state_directory(*find(sources, SETTING.name), environment)


def test_alone_it_is_found_whatever_is_wrong_with_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "lxdsched.toml"
    file.write_text('pot = 1\nport = "x"\nstate_directory = "/in/file"\n')
    assert found(file=file) == (f"{file}: state_directory", "/in/file")
    assert found(file=file, **variable("/in/environment")) == (VARIABLE, "/in/environment")
    assert found({"state-directory": "/in/option"}, file) == ("--state-directory", "/in/option")
    assert found(STATE_DIRECTORY="/var/lib/x") == ("STATE_DIRECTORY", "/var/lib/x")
    assert found()[1] is None
    file.write_text("x = [")
    assert found({"state-directory": "/in/option"}, file) == ("--state-directory", "/in/option")
    for broken in (file, tmp_path / "missing"):
        with pytest.raises(ConfigError, match=str(broken)):
            found(file=broken)
    file.write_text("state_directory = 5")
    with pytest.raises(ConfigError, match="state_directory: is 5, not a text"):
        found(file=file)
