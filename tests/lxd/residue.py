"""What a daemon leaves behind when it dies: processes, mounts, cgroups and its directory. All of it goes at once.

Everything is found by the daemon's own directory, whose random name no other daemon shares, so another LXD or Incus on
the machine is never touched. Plain blocking code that imports nothing of ours: it runs in finalizers, when the reactor
may be gone, and in a guard process (`python residue.py`) that outlives a killed test session just long enough to
clean up after it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

DAEMONS = frozenset({"lxd", "incusd"})
CGROUPS = Path("/sys/fs/cgroup")
LOCKS = Path("/run/lxc/lock")
MNT_DETACH = 2
ROUNDS = 100
ROUND_SECONDS = 0.02


def clean(directory: Path) -> None:
    """End every process of the daemon in `directory`, undo its mounts, remove its cgroups and the directory."""
    groups: set[str] = set()
    for _ in range(ROUNDS):
        pids = processes(directory)
        if not pids:
            break
        for pid in pids:
            groups |= _groups_of(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A frozen process dies only once it is thawed.
        for group in groups:
            _thaw(group)
        time.sleep(ROUND_SECONDS)
    for mount in mounts(directory):
        _unmount(mount)
    for group in groups | _groups_by_name(directory):
        _remove_group(group)
    for tree in trees(directory):
        shutil.rmtree(tree, ignore_errors=True)
    directory.with_suffix(".log").unlink(missing_ok=True)


def processes(directory: Path) -> frozenset[int]:
    """The living processes of the daemon in `directory`: itself, its helpers, and all that runs in its containers."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for pid in _pids():
        with contextlib.suppress(OSError):
            state, parent = _stat(pid)
            if state in "ZX":
                continue
            parents[pid] = parent
            if _is_daemons(pid, directory) or _is_rooted_in(pid, directory):
                found.add(pid)
    # What runs in a container descends from its monitor.
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return frozenset(found - {os.getpid()})


def mounts(directory: Path) -> list[Path]:
    """The mount points at or below `directory`, innermost first."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [Path(line.split()[4]) for line in file]
    return sorted((p for p in points if p.is_relative_to(directory)), key=lambda p: len(p.parts), reverse=True)


def trees(directory: Path) -> list[Path]:
    """What the daemon in `directory` has on disk: that directory, and liblxc's locks for its containers."""
    both = (directory, LOCKS / directory.relative_to("/"))
    return [tree for tree in both if tree.exists()]


class Guard:
    """A process of its own that cleans up what is still being watched when this process ends, however it ends.

    It reads directories from a pipe that only this process holds open, so even SIGKILL here is noticed there.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def watch(self, directory: Path) -> None:
        """From now on `directory` is cleaned up when this process ends."""
        if self._process is None:
            # A session of its own: a terminal's interrupt must not end the guard together with the tests.
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
            )
            atexit.register(self.close)
        self._tell("+", directory)

    def release(self, directory: Path) -> None:
        """Forget `directory`: it has been cleaned up."""
        self._tell("-", directory)

    def close(self) -> None:
        """Clean up what is still watched, and wait until that is done."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait()

    def _tell(self, what: str, directory: Path) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(f"{what}{directory}\n")
            self._process.stdin.flush()


def _guard(lines: Iterable[str]) -> None:
    watched: dict[Path, None] = {}
    for line in lines:
        directory = Path(line[1:].rstrip("\n"))
        if line.startswith("+"):
            watched[directory] = None
        else:
            watched.pop(directory, None)
    for directory in watched:
        clean(directory)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _stat(pid: int) -> tuple[str, int]:
    # The name stands in parentheses and may itself hold any character.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return fields[0], int(fields[1])


def _is_daemons(pid: int, directory: Path) -> bool:
    """Tell a daemon, monitor or helper of this directory; not a pager that merely shows its log."""
    if os.path.basename(os.readlink(f"/proc/{pid}/exe")).split(" ")[0] not in DAEMONS:
        return False
    words = b" ".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    return os.fsencode(directory) in words


def _is_rooted_in(pid: int, directory: Path) -> bool:
    """Tell a process whose root file system is a container's of this directory, even when its monitor has died."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace") as file:
        return any(fields[4] == "/" and f"/{directory.name}/" in fields[3] for fields in map(str.split, file))


def _groups_by_name(directory: Path) -> set[str]:
    """The cgroups that the containers have by their names; of those that ran, and of those that never did."""
    containers = directory / "containers"
    names = os.listdir(containers) if containers.is_dir() else []
    return {f"lxc.{kind}.{name}" for kind in ("payload", "monitor") for name in names}


def _groups_of(pid: int) -> set[str]:
    """The cgroups that a process really is in: where two daemons have containers of one name, one gets another."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
        names = {line.split(":", 2)[2].split("/")[1] for line in lines}
        return {name for name in names if name.startswith(("lxc.payload.", "lxc.monitor."))}
    return set()


def _group_directories(group: str) -> Iterator[Path]:
    """The directories of one cgroup: one with the unified hierarchy, one for each controller with the old ones."""
    for hierarchy in (CGROUPS, *CGROUPS.iterdir()):
        directory = hierarchy / group
        if directory.is_dir():
            yield directory


def _thaw(group: str) -> None:
    for directory in _group_directories(group):
        for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            if (directory / name).exists():
                with contextlib.suppress(OSError):
                    (directory / name).write_text(word)


def _remove_group(group: str) -> None:
    for directory in _group_directories(group):
        for path, _, _ in os.walk(directory, topdown=False):
            # A group that still has somebody in it is not empty, and not ours alone.
            with contextlib.suppress(OSError):
                os.rmdir(path)


def _unmount(mount: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.umount2(os.fsencode(mount), MNT_DETACH)


if __name__ == "__main__":
    _guard(sys.stdin)
