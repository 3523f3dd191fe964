"""The clients file as a part of the configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lxdsched.cli import main
from lxdsched.config import ConfigError, Sources, find, load
from tests.unit.conftest import configure, faults

VARIABLE = "LXD_MULTI_SCHEDULER_CLIENTS_FILE"


def test_without_a_clients_file_there_is_no_access_control(entry: dict[str, Any]) -> None:
    assert configure([entry]).guard.clients is None


def test_clients_are_read_with_the_configuration(entry: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "clients.toml"
    file.touch(mode=0o600)
    file.write_text('[shoes-1]\nrights = ["schedule"]\n')
    config = configure([entry], LXD_MULTI_SCHEDULER_CLIENTS_FILE=str(file))
    assert config.guard.clients is not None
    assert [each.client.name for each in config.guard.clients.entries] == ["shoes-1"]
    assert config.reread_files == (file,)


def test_a_clients_file_without_clients_lets_nobody_in(entry: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").touch(mode=0o600)
    config = configure([entry], LXD_MULTI_SCHEDULER_CLIENTS_FILE=str(tmp_path / "empty"))
    assert config.guard.clients is not None
    assert config.guard.clients.entries == ()


def test_faults_of_the_clients_are_among_those_of_the_configuration(entry: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "clients.toml"
    file.touch(mode=0o600)
    file.write_text('[a]\nrights = ["raed"]\n[b]\n')
    assert faults([entry], LXD_MULTI_SCHEDULER_CLIENTS_FILE=str(file), LXD_MULTI_SCHEDULER_PORT="x") == [
        "LXD_MULTI_SCHEDULER_PORT: is 'x', not a whole number",
        f"{file}: a.rights[0]: is 'raed', not one of schedule, read, admin, did you mean read?",
        f"{file}: b.rights: must be an array of at least one of schedule, read, admin",
    ]


def test_warnings_are_said_beside_faults_but_for_what_a_fault_makes_up(entry: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "clients.toml"
    file.touch(mode=0o600)
    file.write_text('[a]\nrights = ["read"]\nnames = ["a.example"]\n')
    stray = "LXD_MULTI_SCHEDULER_PROT is not a setting of lxdsched, did you mean LXD_MULTI_SCHEDULER_PORT?; ignored"
    given = {"LXD_MULTI_HOSTS": json.dumps([entry]), VARIABLE: str(file), "LXD_MULTI_SCHEDULER_PROT": "1"}
    more: tuple[str, ...]
    for faulty, more in (
        ({"LXD_MULTI_SCHEDULER_TLS_CERT": "/missing", "LXD_MULTI_SCHEDULER_TLS_KEY": "/missing"}, ()),
        ({"LXD_MULTI_SCHEDULER_PORT": "x"}, ("client a is known by certificates, and the listener asks for none",)),
    ):
        with pytest.raises(ConfigError) as caught:
            load(Sources({}, given | faulty), ("least-allocated",))
        assert caught.value.warnings == (stray, *more)


def test_a_clients_file_that_cannot_be_read_is_a_fault_and_no_open_door(entry: dict[str, Any], tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    file = tmp_path / "lxdsched.toml"
    file.write_text(f'clients_file = "{missing}"')
    assert faults([entry], file=file) == [f"{file}: clients_file: {missing}: No such file or directory"]
    assert faults([entry], LXD_MULTI_SCHEDULER_CLIENTS_FILE="/dev/zero") == [
        f"{VARIABLE}: /dev/zero: is not a regular file"
    ]


def test_one_setting_is_found_whatever_is_wrong_with_others(tmp_path: Path) -> None:
    file = tmp_path / "lxdsched.toml"
    file.write_text('clients_file = "a"\nport = []\nnonsense = 1\n')
    assert find(Sources({}, {}, str(file)), "clients_file")[1] == "a"
    assert find(Sources({}, {"LXD_MULTI_SCHEDULER_CONFIG": str(file)}), "clients_file")[1] == "a"
    assert find(Sources({}, {VARIABLE: "b"}, str(file)), "clients_file")[1] == "b"
    assert find(Sources({"clients-file": "c"}, {VARIABLE: "b"}, str(file)), "clients_file")[1] == "c"
    assert find(Sources(), "clients_file")[1] is None


@pytest.mark.parametrize(
    ("text", "fault"), [("clients_file = 1", "clients_file: is 1, not a text"), ("[", "not a TOML file: ")]
)
def test_a_setting_that_cannot_be_found_is_a_fault(text: str, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "lxdsched.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        find(Sources({}, {}, str(file)), "clients_file")
    (found,) = caught.value.faults
    assert found.startswith(f"{file}: {fault}")


def test_check_counts_the_clients(
    entry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "clients.toml"
    file.touch(mode=0o600)
    file.write_text('[a]\nrights = ["read"]\n[b]\nrights = ["read"]\n')
    monkeypatch.setenv("LXD_MULTI_HOSTS", json.dumps([entry]))
    monkeypatch.setenv(VARIABLE, str(file))
    assert main(["check"]) == 0
    assert "1 host, strategy least-allocated, 2 clients" in capsys.readouterr().out
    file.write_text("[a]")
    assert main(["check"]) == 1
    assert capsys.readouterr().err == f"{file}: a.rights: must be an array of at least one of schedule, read, admin\n"


def test_a_key_in_a_file_that_the_daemon_will_not_take_is_said_to_be_of_no_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "clients.toml"
    assert main(["key", "new", "a", "--file", str(file)]) == 0
    assert "will not take" not in capsys.readouterr().err
    file.chmod(0o644)
    assert main(["key", "revoke", "a", "--file", str(file)]) == 0
    assert f"the daemon will not take the file as it is, and goes by what it has read before: {file}" in (
        capsys.readouterr().err
    )
