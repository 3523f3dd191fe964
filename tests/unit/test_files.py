"""How files of the configuration are read, and who else may read those that hold a secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxdsched.config.files import Files
from lxdsched.config.values import Fault
from lxdsched.smallfiles import MOST_BYTES
from tests.support import write_secret

US = 4711
"""A user that is neither root nor who runs the tests."""


def fault_of(files: Files, name: Path | str, *, secret: bool = False) -> str:
    with pytest.raises(Fault) as caught:
        (files.read_secret if secret else files.read)(str(name))
    return str(caught.value)


@pytest.fixture
def files() -> Files:
    return Files(None, allow_exposed=False)


def as_root() -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")


def test_a_file_is_read_once_however_many_name_it(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("first")
    assert files.read(str(path)) == b"first"
    path.write_text("second")
    assert files.read(str(path)) == b"first"
    assert Files(None, allow_exposed=False).read(str(path)) == b"second"


def test_what_cannot_be_read_is_said_with_the_file(files: Files, tmp_path: Path) -> None:
    missing, fifo, large = tmp_path / "missing", tmp_path / "fifo", tmp_path / "large"
    os.mkfifo(fifo)
    large.write_bytes(b"x" * (MOST_BYTES + 1))
    assert fault_of(files, missing) == f"{missing}: No such file or directory"
    assert fault_of(files, missing) == f"{missing}: No such file or directory"
    assert fault_of(files, tmp_path) == f"{tmp_path}: is a directory"
    assert fault_of(files, fifo) == f"{fifo}: is not a regular file"
    assert fault_of(files, "/dev/zero") == "/dev/zero: is not a regular file"
    assert fault_of(files, large) == f"{large}: is larger than 1024 KiB"
    assert "embedded null byte" in fault_of(files, "\0")


def test_the_largest_file_is_read_whole(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * MOST_BYTES)
    assert len(files.read(str(path))) == MOST_BYTES


def test_a_key_in_place_of_its_files_name_is_not_repeated(files: Files) -> None:
    for text in ("-----BEGIN PRIVATE KEY-----", "hunter\n2"):
        assert fault_of(files, text) == "holds what should be in a file, not the name of one"


def test_a_credential_is_found_where_systemd_keeps_it(tmp_path: Path) -> None:
    write_secret(tmp_path / "client.key", "key")
    files = Files(str(tmp_path), allow_exposed=False)
    assert files.path("credential:client.key") == tmp_path / "client.key"
    assert files.read_secret("credential:client.key") == b"key"
    assert fault_of(files, "credential:other") == f"{tmp_path}/other: No such file or directory"


@pytest.mark.parametrize("name", ["", ".", "..", "../client.key", "/etc/passwd", "a/b"])
def test_a_credential_is_a_plain_name(name: str, tmp_path: Path) -> None:
    found = fault_of(Files(str(tmp_path), allow_exposed=False), f"credential:{name}")
    assert found == f"credential:{name}: is not credential:NAME, with the name of a file alone"


@pytest.mark.parametrize("directory", [None, ""])
def test_without_credentials_it_is_said_how_to_have_them(directory: str | None) -> None:
    found = fault_of(Files(directory, allow_exposed=False), "credential:client.key")
    assert "CREDENTIALS_DIRECTORY is not set" in found
    assert "LoadCredential=client.key:/PATH" in found


@pytest.mark.parametrize(
    ("owner", "mode", "allowed"),
    [
        (US, 0o600, True),
        (US, 0o400, True),
        (US, 0o640, False),
        (US, 0o620, False),
        (US, 0o604, False),
        (US, 0o610, False),
        (0, 0o600, True),
        (0, 0o640, True),
        (0, 0o440, True),
        (0, 0o660, False),
        (0, 0o650, False),
        (0, 0o644, False),
        (0, 0o602, False),
        (US + 1, 0o600, False),
    ],
)
def test_a_secret_is_ours_or_roots_and_nobody_elses(owner: int, mode: int, allowed: bool, tmp_path: Path) -> None:
    as_root()
    path = write_secret(tmp_path / "key", "key")
    os.chown(path, owner, -1)
    path.chmod(mode)
    files = Files(None, allow_exposed=False, owner=US)
    if allowed:
        assert files.read_secret(str(path)) == b"key"
    else:
        assert f"{path}: mode {mode:04o}, owner " in fault_of(files, path, secret=True)
    assert files.read(str(path)) == b"key"


def test_what_mends_an_exposed_secret_is_said(tmp_path: Path) -> None:
    as_root()
    path = write_secret(tmp_path / "the key", "key")
    path.chmod(0o644)
    files = Files(None, allow_exposed=False, owner=US)
    assert fault_of(files, path, secret=True) == (
        f"{path}: mode 0644, owner root: others can get at it: chmod 0640 '{path}' or less"
    )
    os.chown(path, US, -1)
    assert fault_of(Files(None, allow_exposed=False, owner=US), path, secret=True) == (
        f"{path}: mode 0644, owner 4711: others can get at it: chmod 0600 '{path}'"
    )
    assert fault_of(Files(None, allow_exposed=False, owner=1), path, secret=True) == (
        f"{path}: mode 0644, owner 4711: it belongs neither to daemon, as whom the daemon runs, nor to "
        f"root: chown daemon '{path}' && chmod 0600 '{path}'"
    )


def test_without_a_user_of_its_own_the_daemon_runs_as_we_do(tmp_path: Path) -> None:
    as_root()
    path = write_secret(tmp_path / "key", "key")
    os.chown(path, US, -1)
    assert "neither to root, as whom the daemon runs" in fault_of(Files(None, allow_exposed=False), path, secret=True)


def test_it_is_the_opened_file_that_counts_and_not_what_has_its_name_since(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("key")
    path.chmod(0o666)
    files = Files(None, allow_exposed=False)
    files.read(str(path))
    path.unlink()
    write_secret(path, "other")
    assert "mode 0666" in fault_of(files, path, secret=True)


def test_an_exposed_secret_may_be_allowed_and_is_one_warning(tmp_path: Path) -> None:
    path = write_secret(tmp_path / "key", "key")
    path.chmod(0o666)
    files = Files(None, allow_exposed=True)
    assert files.read_secret(str(path)) == files.read_secret(str(path)) == b"key"
    assert [warning.startswith(f"{path}: mode 0666, ") for warning in files.warnings] == [True]


@pytest.mark.parametrize(
    ("owner", "mode", "allowed"),
    [
        (US, 0o600, True),
        (US, 0o644, True),
        (US, 0o664, False),
        (US, 0o646, False),
        (0, 0o644, True),
        (0, 0o664, True),
        (0, 0o666, False),
        (US + 1, 0o644, True),
        (US + 1, 0o664, False),
    ],
)
def test_what_is_believed_nobody_else_can_write(owner: int, mode: int, allowed: bool, tmp_path: Path) -> None:
    as_root()
    path = tmp_path / "ca.crt"
    path.write_text("ca")
    os.chown(path, owner, -1)
    path.chmod(mode)
    if allowed:
        assert Files(None, allow_exposed=False, owner=US).read_trusted(str(path)) == b"ca"
        return
    with pytest.raises(Fault) as caught:
        Files(None, allow_exposed=False, owner=US).read_trusted(str(path))
    assert str(caught.value).startswith(f"{path}: mode {mode:04o}, owner ")
    assert str(caught.value).endswith(f": others can change it: chmod go-w {path}")
    files = Files(None, allow_exposed=True, owner=US)
    assert files.read_trusted(str(path)) == b"ca"
    assert files.warnings == [str(caught.value)]
