"""The clients file on the disk: read as it is, and replaced as a whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp

from lxdsched import lockfile
from lxdsched.access.reading import ClientsError, read_clients
from lxdsched.access.values import Entry
from lxdsched.smallfiles import MOST_BYTES, Unreadable, read_small

PATIENCE = 30.0
"""Seconds to wait for another one who changes the file."""
_ACCESS_LIST = "system.posix_acl_access"
"""The attribute in which Linux keeps who else may read a file."""


def read_file(path: str) -> bytes:
    """Read a clients file. ClientsError when there is no such file to read."""
    try:
        return read_small(path).data
    except Unreadable as why:
        raise ClientsError([f"{path}: {why}"]) from None


@contextmanager
def changing(path: str, *, create: bool = False, patience: float = PATIENCE) -> Iterator[ClientsFile]:
    """Hold a clients file, so that nobody else changes it meanwhile. ClientsError when it cannot be read or held.

    With `create` one that does not exist is empty.
    """
    try:
        target = Path(path).resolve()  # the file is replaced where it is, not a link to it
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError for links in a circle
        raise _failed(path, error) from None
    if not create or os.path.exists(target):
        read_file(path)  # beside what is no such file there is to be no lock either
    try:
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _failed(str(target.parent), error) from None
    try:
        lock = _locked(path, target, directory, patience)
        try:
            yield ClientsFile(path, target, directory, create=create)
        finally:
            os.close(lock)
    finally:
        os.close(directory)


class ClientsFile:
    """A clients file that we hold: its `text`, and the `clients` in it. ClientsError when they are not good."""

    def __init__(self, path: str, target: Path, directory: int, *, create: bool) -> None:
        self._path = path
        self._target = target
        self._directory = directory
        self.is_new = create and not os.path.exists(target)
        content = b"" if self.is_new else read_file(path)
        self.clients = read_clients(content, path)
        self.text = self._written = content.decode()

    def edit(self, change: Callable[[str], str], expected: Iterable[Entry]) -> None:
        """Change the text of the file, so that it then has these clients. ClientsError when nothing was changed.

        What is written is read back before it takes the file's place. Mode, owner and attributes stay; a new file is
        its owner's alone.
        """
        try:
            text = change(self.text)
        except Exception:  # whatever the library stumbles over
            raise self._unbearable() from None
        self._replace(self.text, text, expected)
        self._written = text

    def restore(self) -> None:
        """Put back what was there before the last change. ClientsError when that fails."""
        if not self.is_new:
            self._replace(self._written, self.text, self.clients.entries)
            return
        try:
            self._target.unlink()
        except OSError as error:
            raise _failed(self._path, error) from None

    def _replace(self, old: str, new: str, expected: Iterable[Entry]) -> None:
        if len(new.encode()) > MOST_BYTES:
            raise ClientsError([f"{self._path}: is not changed, it would be larger than {MOST_BYTES // 1024} KiB"])
        try:
            descriptor, temporary = mkstemp(prefix=f".{self._target.name}.", dir=self._target.parent)
        except OSError as error:
            raise _failed(str(self._target.parent), error) from None
        try:
            with open(descriptor, "wb") as file:
                file.write(new.encode())
                file.flush()
                if not self.is_new:
                    _become_alike(file.fileno(), self._target)
                os.fsync(file.fileno())
            self._check(read_file(temporary), new, expected)
            if not self.is_new and read_file(self._path) != old.encode():
                raise ClientsError([f"{self._path}: somebody else has changed it meanwhile; try again"])
            os.replace(temporary, self._target)
            with suppress(OSError):  # not every file system does this, and the file is in its place already
                os.fsync(self._directory)
        except OSError as error:
            raise _failed(self._path, error) from None
        finally:
            with suppress(OSError):
                os.unlink(temporary)

    def _check(self, written: bytes, text: str, expected: Iterable[Entry]) -> None:
        try:
            found = read_clients(written, self._path).entries
        except ClientsError as error:
            raise ClientsError([f"{self._path}: is not changed, it would have faults:", *error.faults]) from None
        if written != text.encode() or _by_name(found) != _by_name(expected):
            raise self._unbearable()

    def _unbearable(self) -> ClientsError:
        return ClientsError([f"{self._path}: is not changed, its layout does not bear it; write it more plainly"])


def _locked(path: str, target: Path, directory: int, patience: float) -> int:
    """Lock a file beside the clients file, which itself is another one after each change."""
    name = f".{target.name}.lock"
    shown = target.with_name(name)
    try:
        owner = target.stat() if os.path.exists(target) else os.fstat(directory)
        return lockfile.hold(directory, name, patience, owner)
    except lockfile.Held:
        raise ClientsError([f"{path}: somebody else is changing it, and has locked {shown}; try again"]) from None
    except lockfile.Unusable as unusable:
        raise ClientsError([f"{shown}: {unusable}"]) from None
    except OSError as error:
        raise _failed(str(target), error) from None


def _become_alike(descriptor: int, model: Path) -> None:
    ours, theirs = os.fstat(descriptor), model.stat()
    if (ours.st_uid, ours.st_gid) != (theirs.st_uid, theirs.st_gid):
        try:
            os.fchown(descriptor, theirs.st_uid, theirs.st_gid)
        except OSError as error:
            raise OSError(error.errno, f"is not changed, its owner would not stay: {error.strerror}") from None
    os.fchmod(descriptor, stat.S_IMODE(theirs.st_mode))
    try:
        attributes = os.listxattr(model)
    except OSError:  # a file system without any
        attributes = []
    if _ACCESS_LIST in attributes:
        os.setxattr(descriptor, _ACCESS_LIST, os.getxattr(model, _ACCESS_LIST))


def _by_name(entries: Iterable[Entry]) -> dict[str, Entry]:
    return {entry.client.name: entry for entry in entries}


def _failed(path: str, error: Exception) -> ClientsError:
    return ClientsError([f"{path}: {getattr(error, 'strerror', None) or error}"])
