"""The file in which it is remembered who is trusted: what it survives, and what is not believed."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lxdsched.trust.directory import Busy, StoreError, Unreliable, Unwritable
from lxdsched.trust.file import MOST, TrustFile, decode, encode
from lxdsched.trust.records import Hosts, Known, Shown

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
SHOWN = Shown("cd" * 32, AT, "CN=node", ("node", "127.0.0.1"), AT, AT)
HOSTS = {
    "https://node-1:8443": Known("ab" * 32, AT, "first_use", SHOWN),
    "https://[2001:db8::1]:8443": Known("12" * 32, AT, "person"),
}


@pytest.fixture
def file(tmp_path: Path) -> TrustFile:
    """A file that holds two hosts."""
    made = TrustFile(str(tmp_path / "state"))
    made.update(lambda _: HOSTS)
    return made


def plus(number: int) -> dict[str, Known]:
    return {f"https://more-{number}:8443": Known(f"{number:064x}", AT, "first_use")}


def test_what_was_written_is_read(file: TrustFile) -> None:
    assert file.read() == HOSTS
    assert TrustFile(file.directory).read() == HOSTS


def test_what_has_never_been_written_is_not_there(tmp_path: Path) -> None:
    assert TrustFile(str(tmp_path)).read() is None
    assert TrustFile(str(tmp_path / "missing")).read() is None


def test_directory_and_files_are_for_their_owner_alone(file: TrustFile) -> None:
    directory = Path(file.directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {
        "trust.json": 0o600,
        "trust.lock": 0o600,
    }


def test_no_byte_may_be_another_one() -> None:
    data = encode(HOSTS)
    for place in range(len(data)):
        for other in (data[place] ^ 1, data[place] ^ 0x20, data[place] ^ 0x80, ord(" "), 0):
            if other != data[place]:
                with pytest.raises(ValueError, match=r"is damaged|has format"):
                    decode(data[:place] + bytes([other]) + data[place + 1 :])


def test_no_byte_may_be_missing_or_too_many() -> None:
    data = encode(HOSTS)
    for place in range(len(data)):
        for damaged in (data[:place], data[:place] + data[place + 1 :], data[:place] + b" " + data[place:]):
            with pytest.raises(ValueError, match="is damaged"):
                decode(damaged)
    with pytest.raises(ValueError, match="is damaged"):
        decode(data + b"\n")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"version":1}', b'{"version":0}']
)
def test_what_is_something_else_is_damage(data: bytes) -> None:
    with pytest.raises(ValueError, match="is damaged"):
        decode(data)


def test_a_format_of_the_future_is_told_as_such() -> None:
    with pytest.raises(ValueError, match="has format 2, of a newer lxdsched; this one knows format 1"):
        decode(b'{"version":2,"anything":{}}')


@pytest.mark.parametrize("data", [b"", b'{"version":2}', b"x" * (MOST + 1)])
def test_a_file_that_is_not_believed_is_neither_read_nor_written_over(file: TrustFile, data: bytes) -> None:
    Path(file.path).write_bytes(data)
    with pytest.raises(Unreliable, match=file.path):
        file.read()
    with pytest.raises(Unreliable, match=file.path):
        file.update(lambda before: {**(before or {}), **plus(1)})
    with pytest.raises(Unreliable, match=file.path):
        file.check()
    assert Path(file.path).read_bytes() == data


def test_a_file_that_others_may_write_is_not_believed(file: TrustFile) -> None:
    os.chmod(file.path, 0o620)
    with pytest.raises(Unreliable, match=f"{file.path}: others than its owner may write to it"):
        file.read()


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_directory_in_which_others_may_write_is_not_used(file: TrustFile, mode: int) -> None:
    os.chmod(file.directory, mode)
    for use in (file.check, file.read, lambda: file.update(lambda _: {})):
        with pytest.raises(Unreliable, match=f"{file.directory}: others than its owner may write to it"):
            use()


def test_what_is_no_file_is_not_believed(file: TrustFile) -> None:
    os.rename(file.path, f"{file.path}.real")
    os.symlink(f"{file.path}.real", file.path)
    with pytest.raises(Unreliable, match="symbolic link"):
        file.read()
    os.unlink(file.path)
    os.mkfifo(file.path)
    with pytest.raises(Unreliable, match="is not a regular file"):
        file.read()
    os.unlink(file.path)
    os.mkdir(file.path)
    with pytest.raises(Unreliable, match=file.path):
        file.read()


def test_a_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(StoreError, match=f"{tmp_path}/state: Not a directory"):
        TrustFile(str(tmp_path / "state")).check()


def test_a_directory_is_made_but_not_its_parents(tmp_path: Path) -> None:
    file = TrustFile(str(tmp_path / "a" / "b"))
    with pytest.raises(Unwritable, match=f"{tmp_path}/a/b: cannot be made: there is no directory {tmp_path}/a"):
        file.check()
    (tmp_path / "a").mkdir()
    file.check()
    assert not (tmp_path / "a" / "b").exists()
    file.prepare()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_link_to_the_directory_will_do(file: TrustFile, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.directory)
    assert TrustFile(str(tmp_path / "link")).read() == HOSTS


def test_a_lock_that_is_held_is_not_waited_for(file: TrustFile) -> None:
    with open(f"{file.directory}/trust.lock", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Busy, match=r"trust.lock: another process has locked it"):
            file.update(lambda before: {**(before or {}), **plus(1)})
        assert file.read() == HOSTS
    file.update(lambda before: {**(before or {}), **plus(1)})
    assert file.read() == HOSTS | plus(1)


def test_a_lock_is_waited_for_as_long_as_is_said(file: TrustFile) -> None:
    with open(f"{file.directory}/trust.lock", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        release = threading.Timer(0.2, fcntl.flock, (held, fcntl.LOCK_UN))
        release.start()
        file.update(lambda before: {**(before or {}), **plus(1)}, 60)
        release.join()
    assert file.read() == HOSTS | plus(1)


def test_who_changes_it_at_the_same_time_loses_nothing(tmp_path: Path) -> None:
    def add(numbers: range) -> None:
        file = TrustFile(str(tmp_path))
        for number in numbers:
            file.update(lambda before, number=number: {**(before or {}), **plus(number)}, 60)  # type: ignore[misc]

    threads = [threading.Thread(target=add, args=(range(start, start + 10),)) for start in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(TrustFile(str(tmp_path)).read() or {}) == 40


def test_what_does_not_change_is_not_written(file: TrustFile) -> None:
    before = file.stamp()
    assert file.update(lambda hosts: dict(hosts or {})) == HOSTS
    assert file.stamp() == before


def test_a_change_shows_in_the_stamp_and_nothing_else_does(file: TrustFile) -> None:
    first = file.look(None)
    assert not isinstance(first, StoreError | None)
    assert first.hosts == HOSTS
    assert file.look(first.stamp) is None
    file.update(lambda hosts: {**(hosts or {}), **plus(1)})
    second = file.look(first.stamp)
    assert not isinstance(second, StoreError | None)
    assert second.hosts == HOSTS | plus(1)
    Path(file.path).write_bytes(b"x")
    assert isinstance(file.look(second.stamp), Unreliable)


def full(file: TrustFile, hosts: Hosts) -> None:
    """Change the file where no file may grow beyond a few bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        file.update(lambda _: hosts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_what_was_there(file: TrustFile) -> None:
    with pytest.raises(Unwritable, match=f"{file.path}: File too large"):
        full(file, HOSTS | plus(1))
    assert file.read() == HOSTS
    assert sorted(path.name for path in Path(file.directory).iterdir()) == ["trust.json", "trust.lock"]
    assert file.update(lambda before: {**(before or {}), **plus(1)}) == HOSTS | plus(1) == file.read()


WRITER = """
import sys
from datetime import UTC, datetime
from lxdsched.trust.file import TrustFile
from lxdsched.trust.records import Known

file = TrustFile(sys.argv[1])
for number in range(1_000_000):
    known = Known(f"{number:064x}", datetime(2026, 5, 1, tzinfo=UTC), "first_use")
    file.update(lambda _: {f"https://{each}:8443": known for each in range(200)}, 60)
    print(number, flush=True)
"""


@pytest.mark.parametrize("steps", range(1, 13))
def test_whoever_is_killed_while_writing_leaves_a_whole_file(tmp_path: Path, steps: int) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(steps)]
        writer.send_signal(signal.SIGKILL)
    hosts = TrustFile(str(tmp_path)).read()
    assert hosts is not None
    assert len(hosts) == 200
    assert len({known.fingerprint for known in hosts.values()}) == 1
    assert int(hosts["https://0:8443"].fingerprint, 16) >= said[-1]
    TrustFile(str(tmp_path)).update(
        lambda _: HOSTS
    )  # its lock went with it, and what it left half-written is no obstacle
    assert TrustFile(str(tmp_path)).read() == HOSTS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_root_writes_for_the_one_whose_directory_it_is(file: TrustFile) -> None:
    for path in (file.directory, file.path, f"{file.directory}/trust.lock"):
        os.chown(path, 1234, 1234)
    file.update(lambda before: {**(before or {}), **plus(1)})
    assert os.stat(file.path).st_uid == 1234
    os.unlink(f"{file.directory}/trust.lock")
    file.update(lambda before: {**(before or {}), **plus(2)})
    assert os.stat(f"{file.directory}/trust.lock").st_uid == 1234


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_what_belongs_to_somebody_else_is_not_believed(file: TrustFile, tmp_path: Path) -> None:
    for path in (file.directory, file.path):
        os.chown(path, 1234, 1234)
    os.chmod(file.directory, 0o755)  # noqa: S103
    for parent in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(parent, 0o755)  # noqa: S103
    code = f"""
import os, sys
sys.path[:] = {sys.path!r}
from lxdsched.trust.file import TrustFile
os.setgroups([]); os.setgid(4321); os.setuid(4321)
try:
    TrustFile({file.directory!r}).read()
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{file.directory}: belongs to user 1234, not to user 4321, who runs this\n"
