"""Whatever is done to the store, and wherever it breaks off, it says what was there before or what was to be there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.trust.directory import StoreError, Unwritable
from lxdsched.trust.file import TrustFile
from lxdsched.trust.records import Hosts, Known, Shown, accept, forget, remember

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
URLS = [f"https://node-{number}:8443" for number in range(3)]
FINGERPRINTS = [digit * 64 for digit in "abc"]
CALLS = ("open", "write", "fsync", "rename", "unlink", "close", "fchown")


class Crash(BaseException):
    """The machine stops here."""


@contextmanager
def breaking(at: int, how: BaseException | None) -> Iterator[None]:
    """Have the system call with this number fail, a write after half of it, and nothing come after a crash."""
    left = at
    crashed = False

    def wrap(name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal left, crashed
            if crashed and name != "close":
                raise Crash
            left -= 1
            if left == 0 and how is not None:
                crashed = isinstance(how, Crash)
                if name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                if name == "close":
                    real(*arguments)
                raise how
            return real(*arguments, **more)

        return call

    patches = [patch.object(os, name, wrap(name)) for name in CALLS]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


urls, fingerprints = st.sampled_from(URLS), st.sampled_from(FINGERPRINTS)
operations = st.one_of(
    st.tuples(st.just("meet"), urls, fingerprints),
    st.tuples(st.just("offer"), urls, fingerprints),
    st.tuples(st.just("accept"), urls, fingerprints),
    st.tuples(st.just("forget"), urls, fingerprints),
)
mishaps = st.one_of(
    st.none(),
    st.builds(Crash),
    st.sampled_from([errno.ENOSPC, errno.EIO, errno.EROFS]).map(lambda number: OSError(number, os.strerror(number))),
)


def step(hosts: Hosts | None, operation: tuple[str, str, str]) -> Hosts:
    """Do to the hosts what the operation says."""
    what, url, fingerprint = operation
    known = hosts or {}
    if what == "meet":
        return remember(known, {url: Known(fingerprint, AT, "first_use")}, {})
    if what == "offer":
        return remember(known, {}, {url: Shown(fingerprint, AT)})
    return accept(known, url, fingerprint, AT) if what == "accept" else forget(known, url)


@given(st.lists(st.tuples(operations, st.integers(1, 16), mishaps), max_size=12))
def test_the_store_says_what_was_there_or_what_was_to_be_there(
    steps: list[tuple[tuple[str, str, str], int, BaseException | None]],
) -> None:
    with TemporaryDirectory() as directory:
        file = TrustFile(directory)
        before = file.read()
        for operation, at, mishap in steps:
            after = step(before, operation)
            done = False
            try:
                with breaking(at, mishap):
                    file.update(lambda hosts, operation=operation: step(hosts, operation))  # type: ignore[misc]
                done = True
            except Crash:
                file = TrustFile(directory)
            except StoreError:
                assert not isinstance(mishap, Crash)
            found = file.read()
            assert found == after if done else found in (before, after)
            if before:
                _no_one_else_is_trusted(before, found or {}, operation)
            before = found
        assert {path.name for path in Path(directory).iterdir()} <= {"trust.json", "trust.json.new", "trust.lock"}


def _no_one_else_is_trusted(before: Hosts, found: Hosts, operation: tuple[str, str, str]) -> None:
    what, url, fingerprint = operation
    for each, known in before.items():
        now = found.get(each)
        if (what, each) == ("forget", url):
            assert now is None or now == known
        elif (what, each) == ("accept", url):
            assert now is not None
            assert now.fingerprint in {known.fingerprint, fingerprint}
        else:
            assert now is not None
            assert now.fingerprint == known.fingerprint


@given(st.lists(operations, max_size=20))
def test_nothing_but_a_persons_word_changes_whom_a_known_host_is(steps: list[tuple[str, str, str]]) -> None:
    hosts: Hosts = {}
    for operation in steps:
        before, hosts = hosts, step(hosts, operation)
        _no_one_else_is_trusted(before, hosts, operation)
        assert all(known.offered is None or known.offered.fingerprint != known.fingerprint for known in hosts.values())


def test_what_may_not_have_reached_the_disk_is_written_again(tmp_path: Path) -> None:
    file = TrustFile(str(tmp_path))
    real = os.fsync

    def fsync(which: int) -> None:
        if stat.S_ISDIR(os.fstat(which).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(which)

    hosts = {URLS[0]: Known(FINGERPRINTS[0], AT, "first_use")}
    with patch.object(os, "fsync", fsync), pytest.raises(Unwritable, match="Input/output error"):
        file.update(lambda _: hosts)
    stamp = file.stamp()
    assert file.update(lambda _: hosts) == file.read() == hosts
    assert file.stamp() != stamp


def test_what_is_written_is_on_the_disk_before_it_counts(tmp_path: Path) -> None:
    done: list[str] = []

    def noted(name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            of_directory = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            done.append(f"{name} directory" if of_directory else name)
            return real(*arguments, **more)

        return patch.object(os, name, call)

    with noted("write"), noted("fsync"), noted("rename"):
        TrustFile(str(tmp_path)).update(lambda _: {})
    assert done == ["write", "fsync", "rename", "fsync directory"]
