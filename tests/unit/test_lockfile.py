"""Lock files: one holds them at a time, and nobody but their owner can."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lxdsched.lockfile import Held, Unusable, hold

NOBODY = 65534
OTHER = 65533
LOCK = "the.lock"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that are somebody else's")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may look into."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def take(place: Path, patience: float = 0) -> int:
    directory = os.open(place, os.O_RDONLY)
    try:
        return hold(directory, LOCK, patience, os.fstat(directory))
    finally:
        os.close(directory)


def refusal(place: Path) -> str:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Unusable) as caught:
        take(place)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert not isinstance(caught.value, Held)
    return str(caught.value)


@contextmanager
def nobody() -> Iterator[None]:
    """Become somebody without powers."""
    user = os.geteuid()
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_one_holds_it_at_a_time(place: Path) -> None:
    first = take(place)
    with pytest.raises(Held, match="another process has locked it"):
        take(place)
    os.close(first)
    os.close(take(place))


def test_it_is_waited_for(place: Path) -> None:
    first = take(place)
    release = threading.Timer(0.2, os.close, (first,))
    release.start()
    os.close(take(place, 60))
    release.join()


def test_it_is_its_owners_alone_whatever_the_umask(place: Path) -> None:
    old = os.umask(0)
    try:
        os.close(take(place))
    finally:
        os.umask(old)
    assert stat.S_IMODE((place / LOCK).stat().st_mode) == 0o600


@as_root
def test_nobody_else_can_keep_it(place: Path) -> None:
    (place / LOCK).touch(0o644)
    os.close(take(place))
    with nobody(), pytest.raises(PermissionError):
        os.open(place / LOCK, os.O_RDONLY)


@as_root
def test_what_root_makes_is_the_owners_of_what_it_stands_for(place: Path) -> None:
    os.chown(place, NOBODY, NOBODY)
    os.close(take(place))
    assert (place / LOCK).stat().st_uid == NOBODY


@as_root
def test_what_somebody_else_has_planted_is_not_used(place: Path) -> None:
    (place / LOCK).touch()
    os.chown(place / LOCK, OTHER, OTHER)
    assert refusal(place) == f"belongs to user {OTHER}, who could keep it locked for ever: remove it"
    assert (place / LOCK).stat().st_uid == OTHER


@as_root
def test_what_only_root_can_lock_is_said(place: Path) -> None:
    (place / LOCK).touch(0o600)
    with nobody():
        said = refusal(place)
    assert said == f"belongs to user 0, not to user {NOBODY}, who runs this"


@as_root
def test_where_none_can_be_made_that_is_said(place: Path) -> None:
    with nobody():
        said = refusal(place)
    assert said == "cannot be made: Permission denied"


def test_what_is_no_file_is_not_locked(place: Path) -> None:
    (place / LOCK).symlink_to(place / "victim")
    assert refusal(place) == "is a symbolic link: remove it"
    assert not (place / "victim").exists()
    (place / LOCK).unlink()
    os.mkfifo(place / LOCK)
    assert refusal(place) == "is not a regular file"
    (place / LOCK).unlink()
    (place / LOCK).mkdir()
    assert refusal(place) == "Is a directory"
