"""The file in which it is remembered who is trusted: one JSON object, replaced as a whole, never changed in place.

A file that says anything but what was written is not believed: a checksum over the hosts, in a frame of fixed form,
finds every byte that is not as it was.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePath

import msgspec

from lxdsched.trust import directory as place
from lxdsched.trust.directory import StoreError, Unreliable, Unwritable, why
from lxdsched.trust.records import Hosts, Known

NAME = "trust.json"
TEMPORARY = "trust.json.new"
VERSION = 1
MOST = 16 * 1024**2
"""Bytes that the file may have: some ten thousand hosts, each with a certificate that waits."""

Stamp = tuple[int, ...]
Change = Callable[[Hosts | None], Hosts]


class _Frame(msgspec.Struct):
    version: int
    checksum: str = ""
    hosts: msgspec.Raw = msgspec.Raw(b"")


_frames = msgspec.json.Decoder(_Frame)
_hosts = msgspec.json.Decoder(dict[str, Known])


def encode(hosts: Hosts) -> bytes:
    """Write hosts down as the file has them."""
    body = msgspec.json.encode(hosts, order="sorted")
    return _frame(sha256(body).hexdigest(), body)


def decode(data: bytes) -> dict[str, Known]:
    """Read what `encode` wrote. ValueError, with a sentence for people, for anything else."""
    try:
        frame = _frames.decode(data)
        if frame.version > VERSION:
            raise ValueError(f"has format {frame.version}, of a newer lxdsched; this one knows format {VERSION}")
        body = bytes(frame.hosts)
        if data != _frame(frame.checksum, body) or frame.checksum != sha256(body).hexdigest():
            raise ValueError("is damaged, or was changed by hand: its checksum is wrong")
        return _hosts.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f"is damaged: {error}") from None


def _frame(checksum: str, body: bytes) -> bytes:
    return b'{"version":%d,"checksum":"%s","hosts":%s}\n' % (VERSION, checksum.encode(), body)


@dataclass(frozen=True, slots=True)
class Look:
    """What the file holds, None where there is none. `stamp` is another one when something has changed."""

    stamp: Stamp
    hosts: Hosts | None


class TrustFile:
    """The file in a directory. Nothing is kept between two calls, which may come from any thread, one at a time."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.path = str(PurePath(directory, NAME))
        self._doubtful = False  # whether the last change may not have reached the disk

    def check(self) -> None:
        """Raise StoreError unless all is well with the directory, which may still be missing, and with the file."""
        place.refuse_unusable(self.directory)
        self.read()

    def prepare(self) -> None:
        """Make the directory where it is missing, and look whether all is well. StoreError when not."""
        place.make(self.directory)
        self.check()

    def read(self) -> Hosts | None:
        """Read what is known; None where nothing has been written yet. Unreliable when it cannot be known."""
        try:
            with place.opened(self.directory) as directory:
                return self._load(directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreliable(f"{self.path}: {why(error)}") from None

    def stamp(self) -> Stamp:
        """Say in numbers which file it is, and who may write it, for comparison alone."""
        found: list[int] = []
        for path in (self.directory, self.path):
            try:
                status = os.stat(path)
            except OSError:
                continue
            found += [status.st_dev, status.st_ino, status.st_mode, status.st_uid]
            if path == self.path:
                found += [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        return tuple(found)

    def look(self, stamp: Stamp | None) -> Look | StoreError | None:
        """Read the file unless nothing has changed since the stamp, which is None then."""
        if (now := self.stamp()) == stamp:
            return None
        try:
            return Look(now, self.read())
        except StoreError as error:
            return error

    def update(self, change: Change, patience: float = 0.0) -> Hosts:
        """Change what is known, while no other process does; return it as it is then.

        `change` is given what the file holds, None where there is none, and may raise. Busy when others keep the lock
        for longer than `patience` seconds, Unwritable when the disk does not take it, Unreliable when the file is not
        to be relied on, which leaves it as it is.
        """
        place.make(self.directory)
        try:
            with place.opened(self.directory) as directory, place.locked(self.directory, directory, patience):
                before = self._load(directory)
                after = change(before)
                if after != before or self._doubtful:
                    self._doubtful = True
                    self._save(directory, encode(after))
                    self._doubtful = False
                return after
        except OSError as error:
            raise Unwritable(f"{self.path}: {why(error)}") from None

    def _load(self, directory: int) -> Hosts | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(NAME, flags, dir_fd=directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            problem = "is a symbolic link" if error.errno == errno.ELOOP else why(error)
            raise Unreliable(f"{self.path}: {problem}") from None
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise Unreliable(f"{self.path}: is not a regular file")
            place.refuse_others(self.path, status, os.fstat(directory).st_uid)
            with os.fdopen(file, "rb", closefd=False) as stream:
                data = stream.read(MOST + 1)
        finally:
            os.close(file)
        if len(data) > MOST:
            raise Unreliable(f"{self.path}: is larger than {MOST // 1024**2} MiB")
        try:
            return decode(data)
        except ValueError as error:
            raise Unreliable(f"{self.path}: {error}") from None

    def _save(self, directory: int, data: bytes) -> None:
        if len(data) > MOST:
            raise Unwritable(f"{self.path}: would be larger than {MOST // 1024**2} MiB")
        try:
            self._write(directory, data)
            os.rename(TEMPORARY, NAME, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
        except OSError:
            with suppress(OSError):
                os.unlink(TEMPORARY, dir_fd=directory)
            raise

    def _write(self, directory: int, data: bytes) -> None:
        with suppress(FileNotFoundError):
            os.unlink(TEMPORARY, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(TEMPORARY, flags, 0o600, dir_fd=directory)
        try:
            place.own(file, directory)
            left = memoryview(data)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        finally:
            os.close(file)
