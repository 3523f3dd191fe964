"""The clients file on the disk: it is replaced as a whole or not at all."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxdsched.access import Client, ClientsError, Right
from lxdsched.access.keys import digest
from lxdsched.access.layout import with_key
from lxdsched.access.store import changing, read_file
from lxdsched.access.values import Entry, Key
from lxdsched.smallfiles import MOST_BYTES
from tests.unit.access import NOW, clients

NOBODY = 65534
LOCK = ".clients.toml.lock"
KEY = Key("0000000f", digest("new"), NOW)
WHO = Client("new", frozenset({Right.READ}))
ENTRY = Entry(WHO, (KEY,))
OLD = '# ours\n[old]\nrights = ["admin"]\n'
AFTER = with_key(OLD, WHO, KEY)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "clients.toml"
    file.write_text(OLD)
    return file


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """Be somebody without powers, in a directory of one's own."""
    with tempfile.TemporaryDirectory() as directory:
        own = Path(directory) / "own"
        own.mkdir()
        Path(directory).chmod(0o755)
        user = os.geteuid()
        if user == 0:
            os.chown(own, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield own
        finally:
            os.seteuid(user)
            own.chmod(0o700)


def add(path: Path, *, create: bool = False) -> None:
    with changing(str(path), create=create) as file:
        file.edit(lambda text: with_key(text, WHO, KEY), [*file.clients.entries, ENTRY])


def refusal(path: Path, *, create: bool = False) -> str:
    with pytest.raises(ClientsError) as caught:
        add(path, create=create)
    assert list(path.parent.glob(f".{path.name}.[!l]*")) == []
    return str(caught.value)


def test_a_change_keeps_the_mode_and_leaves_nothing_behind(path: Path) -> None:
    path.chmod(0o640)
    add(path)
    assert path.read_text() == AFTER
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(os.listdir(path.parent)) == [LOCK, "clients.toml"]


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        add(tmp_path / "clients.toml", create=True)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "clients.toml").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_change_keeps_the_owner(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)
    add(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that is somebody else's")
def test_a_file_whose_owner_would_not_stay_is_not_changed(nobodys: Path) -> None:
    os.seteuid(0)
    path = nobodys / "clients.toml"
    path.write_text(OLD)
    path.chmod(0o644)
    os.seteuid(NOBODY)
    assert refusal(path) == f"{path}: is not changed, its owner would not stay: Operation not permitted"
    assert path.read_text() == OLD


def test_a_change_keeps_who_else_may_read_it(path: Path) -> None:
    entries = [(1, 6, -1), (2, 4, NOBODY), (4, 0, -1), (16, 4, -1), (32, 0, -1)]  # as in linux/posix_acl_xattr.h
    allowed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", allowed)
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    add(path)
    assert os.getxattr(path, "system.posix_acl_access") == allowed


def test_a_link_stays_and_what_it_leads_to_is_changed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.toml"
    link.parent.mkdir()
    link.symlink_to(path)
    add(link)
    assert link.is_symlink()
    assert path.read_text() == AFTER


def test_in_a_directory_that_cannot_be_written_nothing_is_changed(nobodys: Path) -> None:
    path = nobodys / "clients.toml"
    path.write_text(OLD)
    nobodys.chmod(0o500)
    assert refusal(path) == f"{nobodys}/{LOCK}: cannot be made: Permission denied"
    assert refusal(nobodys / "new.toml", create=True) == f"{nobodys}/.new.toml.lock: cannot be made: Permission denied"
    nobodys.chmod(0o700)
    (nobodys / LOCK).touch()
    nobodys.chmod(0o500)
    assert refusal(path) == f"{nobodys}: Permission denied"
    assert path.read_text() == OLD


def test_a_directory_that_cannot_be_entered_is_said(nobodys: Path) -> None:
    (nobodys / "clients.toml").write_text(OLD)
    for mode in (0o400, 0o100, 0):
        nobodys.chmod(mode)
        with pytest.raises(ClientsError, match="Permission denied"):
            add(nobodys / "clients.toml", create=True)
    nobodys.chmod(0o700)
    assert (nobodys / "clients.toml").read_text() == OLD


def test_a_change_to_something_else_than_expected_is_not_made(path: Path) -> None:
    for change, why in (
        (lambda text: text, "its layout does not bear it"),
        (lambda text: text + "[new]", "it would have faults:\n.*new.rights: must be an array"),
        (lambda _: "[", "it would have faults:\n.*not a TOML file"),
        (lambda _: 1 / 0, "its layout does not bear it"),
        (lambda text: with_key(text, WHO, Key("0000000e", KEY.digest, NOW)), "its layout does not bear it"),
    ):
        with (
            changing(str(path)) as file,
            pytest.raises(ClientsError, match=f"clients.toml: is not changed, {why}"),
        ):
            file.edit(change, [*file.clients.entries, ENTRY])  # type: ignore[arg-type]
        assert path.read_text() == OLD
        assert sorted(os.listdir(path.parent)) == [LOCK, "clients.toml"]


def test_a_change_by_hand_meanwhile_is_not_overwritten(path: Path) -> None:
    with changing(str(path)) as file:
        path.write_text(OLD + "# more\n")
        with pytest.raises(ClientsError, match="somebody else has changed it meanwhile"):
            file.edit(lambda text: with_key(text, WHO, KEY), [*file.clients.entries, ENTRY])
    assert path.read_text() == OLD + "# more\n"


def test_a_change_can_be_undone(path: Path, tmp_path: Path) -> None:
    for file_path, create in ((path, False), (tmp_path / "new.toml", True)):
        with changing(str(file_path), create=create) as file:
            file.edit(lambda text: with_key(text, WHO, KEY), [*file.clients.entries, ENTRY])
            file.restore()
    assert path.read_text() == OLD
    assert sorted(os.listdir(tmp_path)) == [LOCK, ".new.toml.lock", "clients.toml"]


def test_one_at_a_time_holds_the_file(path: Path) -> None:
    with changing(str(path)), pytest.raises(ClientsError) as caught, changing(str(path), patience=0):
        pass
    assert str(caught.value) == f"{path}: somebody else is changing it, and has locked {path.parent / LOCK}; try again"
    add(path)
    assert [entry.client.name for entry in clients(path.read_text()).entries] == ["old", "new"]


def test_a_lock_on_the_directory_holds_nobody_up(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        with changing(str(path), patience=0) as file:
            file.edit(lambda text: with_key(text, WHO, KEY), [*file.clients.entries, ENTRY])
    finally:
        os.close(directory)
    assert path.read_text() == AFTER


def test_a_lock_stands_beside_what_a_link_leads_to(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.toml"
    link.parent.mkdir()
    link.symlink_to(path)
    with changing(str(link)), pytest.raises(ClientsError), changing(str(path), patience=0):
        pass
    assert os.listdir(link.parent) == ["link.toml"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that are somebody else's")
def test_a_lock_that_is_made_by_root_is_the_owners_of_the_file(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)
    add(path)
    found = (path.parent / LOCK).stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (NOBODY, 0o600)


def test_beside_what_is_no_clients_file_no_lock_appears(tmp_path: Path) -> None:
    with pytest.raises(ClientsError), changing(str(tmp_path / "missing.toml")):
        pass
    (tmp_path / "directory").mkdir()
    with pytest.raises(ClientsError), changing(str(tmp_path / "directory"), create=True):
        pass
    assert os.listdir(tmp_path) == ["directory"]


def test_a_lock_that_somebody_has_planted_is_said_and_not_used(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (path.parent / LOCK).symlink_to(victim)
    assert refusal(path) == f"{path.parent / LOCK}: is a symbolic link: remove it"
    assert not victim.exists()
    assert path.read_text() == OLD


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, why in (
        (tmp_path, "is a directory"),
        (fifo, "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path / "missing", "No such file or directory"),
        (loop, "Too many levels of symbolic links"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(ClientsError) as caught:
            read_file(str(path))
        assert str(caught.value) == f"{path}: {why}"
        with pytest.raises(ClientsError), changing(str(path)):
            pass
    for odd in ("a\0b", "a\ud800b"):
        with pytest.raises(ClientsError):
            read_file(odd)
        with pytest.raises(ClientsError), changing(odd):
            pass


def test_a_file_that_is_too_large_is_said(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ClientsError, match="large: is larger than 1024 KiB"):
        read_file(str(tmp_path / "large"))


def test_a_file_is_not_made_larger_than_what_is_read(path: Path) -> None:
    full = path.read_text().ljust(MOST_BYTES, "#")
    path.write_text(full)
    with pytest.raises(ClientsError) as caught:
        add(path)
    assert str(caught.value) == f"{path}: is not changed, it would be larger than 1024 KiB"
    assert path.read_text() == full
