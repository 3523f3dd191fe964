"""The directory that keeps the daemon's state: only its owner may write there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from lxdsched import lockfile

LOCK = "trust.lock"
"""The file that is locked while the store is changed. It is never removed."""


class StoreError(Exception):
    """The store cannot be used; the message says why, and names the file."""


class Unreliable(StoreError):  # noqa: N818
    """What the store holds cannot be known, or not be relied on: nothing may be trusted because of it."""


class Unwritable(StoreError):  # noqa: N818
    """The store cannot be written."""


class Busy(StoreError):  # noqa: N818
    """Somebody else is changing the store."""


def why(error: OSError) -> str:
    """Return the system's words for an error."""
    return error.strerror or str(error)


def refuse_others(path: str, status: os.stat_result, *owners: int) -> None:
    """Raise Unreliable where others than we, root and these may write. Root takes anybody's for what it is."""
    us = os.geteuid()
    if us != 0 and status.st_uid not in {us, 0, *owners}:
        raise Unreliable(f"{path}: belongs to user {status.st_uid}, not to user {us}, who runs this")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unreliable(f"{path}: others than its owner may write to it: chmod go-w {path}")


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open the directory. FileNotFoundError where it is missing, Unreliable where it cannot be relied on."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreliable(f"{path}: {why(error)}") from None
    try:
        refuse_others(path, os.fstat(directory))
        yield directory
    finally:
        os.close(directory)


def make(path: str) -> None:
    """Make the directory where it is missing, for its owner alone. Unwritable when that cannot be."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except OSError as error:
        raise Unwritable(f"{path}: cannot be made: {why(error)}") from None


def refuse_unusable(path: str) -> None:
    """Raise StoreError unless the directory can be written to, or be made."""
    try:
        with opened(path):
            if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
                raise Unwritable(f"{path}: cannot be written to")
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            raise Unwritable(f"{path}: cannot be made: there is no directory {parent}") from None
        if not os.access(parent, os.W_OK | os.X_OK, effective_ids=True):
            raise Unwritable(f"{path}: does not exist, and cannot be made in {parent}") from None


@contextmanager
def locked(path: str, directory: int, patience: float) -> Iterator[None]:
    """Keep all others from changing the store. Busy when it cannot be had within `patience` seconds."""
    shown = os.path.join(path, LOCK)
    try:
        lock = lockfile.hold(directory, LOCK, patience, os.fstat(directory))
    except lockfile.Held as held:
        raise Busy(f"{shown}: {held}") from None
    except lockfile.Unusable as unusable:
        raise Unwritable(f"{shown}: {unusable}") from None
    try:
        yield
    finally:
        os.close(lock)


def own(file: int, directory: int) -> None:
    """Give a file that root made to the directory's owner, who is to read it."""
    if os.geteuid() == 0:
        status = os.fstat(directory)
        os.fchown(file, status.st_uid, status.st_gid)
