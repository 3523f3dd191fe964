"""Files that are read again while the daemon runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from lxdsched.config import ConfigError, Guard
from lxdsched.reload import SETTLED, WATCH, Reload
from tests.conftest import Logged
from tests.unit.conftest import configure

ONE = '[one]\nrights = ["read"]\n'
TWO = '[two]\nrights = ["read"]\n'


class Watched:
    """A clients file that is watched, and the names of the clients that were taken over, each time.

    At first it cannot be read a number of times.
    """

    def __init__(self, entry: dict[str, Any], file: Path, failing: int = 0) -> None:
        self.file = file
        file.touch(mode=0o600)
        file.write_text(ONE)
        self.clock = Clock()
        self.taken: list[list[str]] = []
        config = configure([entry], LXD_MULTI_SCHEDULER_CLIENTS_FILE=str(file))
        self._failing = failing
        self._reread = config.reread
        self.reload = Reload(replace(config, reread=self._read), self.clock, self._take)

    def _read(self) -> Guard:
        if self._failing:
            self._failing -= 1
            raise ConfigError(["the disk is not there"])
        return self._reread()

    def _take(self, guard: Guard) -> None:
        assert guard.clients is not None
        self.taken.append([each.client.name for each in guard.clients.entries])

    def look(self) -> list[list[str]]:
        """Have it look once, and once more where something is new, and return what it took over because of that."""
        before = len(self.taken)
        self.clock.advance(WATCH)
        self.clock.advance(SETTLED)
        return self.taken[before:]


@pytest.fixture
def watched(entry: dict[str, Any], tmp_path: Path) -> Iterator[Watched]:
    it = Watched(entry, tmp_path / "clients.toml")
    it.reload.start()
    yield it
    it.reload.stop()
    assert it.clock.getDelayedCalls() == []


def change(file: Path, *, mode: int = 0o600, text: str = ONE) -> None:
    """Change a file so that of all its times the one is another that nobody can set: its clock ticks slowly."""
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:
        file.write_text(text)
        file.chmod(mode)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_has_not_changed_is_not_read_again(watched: Watched) -> None:
    assert [watched.look() for _ in range(3)] == [[], [], []]


def test_what_has_changed_is_read_once(watched: Watched, logged: Logged) -> None:
    watched.file.write_text(TWO + ONE)
    assert watched.look() == [["two", "one"]]
    assert watched.look() == []
    assert logged.messages(LogLevel.info) == [f"read again: {watched.file}"]


def test_a_file_that_is_being_written_is_read_when_it_is_done(watched: Watched) -> None:
    change(watched.file, text="")
    watched.clock.advance(WATCH)
    for text in (ONE, ONE + '["t'):
        change(watched.file, text=text)
        watched.clock.advance(SETTLED)
        assert watched.taken == []
    change(watched.file, text=ONE + TWO)
    watched.clock.advance(SETTLED)
    assert watched.taken == []
    watched.clock.advance(SETTLED)
    assert watched.taken == [["one", "two"]]


def test_a_file_whose_old_time_was_set_again_is_read_all_the_same(watched: Watched) -> None:
    change(watched.file, text=TWO)
    assert watched.look() == [["two"]]


def test_a_file_that_others_may_read_from_now_on_is_a_fault_though_its_content_is_the_same(
    watched: Watched, logged: Logged
) -> None:
    change(watched.file, mode=0o644)
    assert watched.look() == []
    (said,) = logged.messages(LogLevel.error)
    assert "others can get at it: chmod" in said


def test_a_file_that_has_gone_changes_nothing_until_it_is_back(watched: Watched, logged: Logged) -> None:
    aside = watched.file.rename(watched.file.with_name("aside"))
    assert watched.look() == []
    assert logged.messages(LogLevel.error) == [
        "what has changed is not taken over: LXD_MULTI_SCHEDULER_CLIENTS_FILE: "
        f"{watched.file}: No such file or directory"
    ]
    aside.rename(watched.file)
    assert watched.look() == [["one"]]


def test_what_could_not_be_read_is_tried_again_though_it_looks_the_same_and_is_told_once(
    entry: dict[str, Any], tmp_path: Path, logged: Logged
) -> None:
    watched = Watched(entry, tmp_path / "clients.toml", failing=3)
    watched.reload.start()
    watched.file.write_text(TWO)
    assert [watched.look() for _ in range(5)] == [[], [], [], [["two"]], []]
    assert len(logged.messages(LogLevel.error)) == 1
    watched.reload.stop()


def test_when_told_to_it_reads_what_has_not_changed(watched: Watched) -> None:
    watched.reload.now()
    assert watched.taken == [["one"]]
    assert watched.look() == []


def test_who_tells_it_to_read_is_told_of_a_fault_again(watched: Watched, logged: Logged) -> None:
    watched.file.write_text("[")
    for _ in range(2):
        watched.reload.now()
    assert len(logged.messages(LogLevel.error)) == 2
    assert watched.taken == []


def test_what_it_warns_of_is_said(watched: Watched, logged: Logged) -> None:
    watched.file.write_text(ONE + 'names = ["one.example"]\n')
    assert watched.look() == [["one"]]
    assert logged.messages(LogLevel.warn) == ["client one is known by certificates, and the listener asks for none"]


def test_what_never_changes_is_not_watched(entry: dict[str, Any], logged: Logged) -> None:
    clock, taken = Clock(), list[Guard]()
    reload = Reload(configure([entry]), clock, taken.append)
    reload.start()
    assert clock.getDelayedCalls() == []
    reload.now()
    assert taken == [Guard()]
    assert logged.messages(LogLevel.info) == ["read again: nothing, since neither clients_file nor tls_cert is set"]
    reload.stop()
