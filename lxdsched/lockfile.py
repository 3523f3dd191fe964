"""Lock files: whoever holds one is the only one to change what it stands for, and only its owner can hold it.

A lock on a directory, or on a file that others can read, could be held by all of them for as long as they like.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

_LOOK_EVERY = 0.05
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Unusable(Exception):  # noqa: N818
    """There is no lock to be had. The message is why, as the second half of a sentence that begins with its name."""


class Held(Unusable):
    """Another process has it."""


def hold(directory: int, name: str, patience: float, owner: os.stat_result) -> int:
    """Lock a file in an open directory; return what is to be closed in the end. The file is made, and never removed.

    `owner` is the status of what the file is to have the owner of, when root makes it. Held when the lock cannot be
    had within `patience` seconds, Unusable when the file is not good for one.
    """
    until = time.monotonic() + patience
    try:
        lock = _opened(directory, name, owner)
        try:
            _refuse_others(lock, owner)
            while not _taken(lock):
                if time.monotonic() >= until:
                    raise Held("another process has locked it")
                time.sleep(_LOOK_EVERY)
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        raise Unusable(_why(error)) from None
    return lock


def _opened(directory: int, name: str, owner: os.stat_result) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY  # NFS locks what can be written
    try:
        lock = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
    except FileExistsError:
        return _found(directory, name, flags)
    except OSError as error:
        raise Unusable(f"cannot be made: {_why(error)}") from None
    try:
        if os.geteuid() == 0:  # only what we made ourselves: another's file of that name is not ours to give away
            os.fchown(lock, owner.st_uid, owner.st_gid)
    except OSError:
        os.close(lock)
        raise
    return lock


def _found(directory: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=directory)
    except PermissionError:
        found, us = os.stat(name, dir_fd=directory, follow_symlinks=False).st_uid, os.geteuid()
        if found == us:
            raise
        raise Unusable(f"belongs to user {found}, not to user {us}, who runs this") from None


def _refuse_others(lock: int, owner: os.stat_result) -> None:
    """Raise Unusable for what somebody else has put there. A mode that lets others in is put right."""
    found, us = os.fstat(lock), os.geteuid()
    if not stat.S_ISREG(found.st_mode):
        raise Unusable("is not a regular file")
    if found.st_uid not in {us, 0, owner.st_uid}:
        raise Unusable(f"belongs to user {found.st_uid}, who could keep it locked for ever: remove it")
    if found.st_mode & _OTHERS:
        os.fchmod(lock, 0o600)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _why(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "is a symbolic link: remove it"
    return error.strerror or str(error)
