"""systemd is told when we are ready, how we stand, that we live, and that we go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from lxdsched.model import State, View
from lxdsched.systemd.manager import Manager, manager
from lxdsched.systemd.standing import BEAT, FIRST_BEAT, WITHIN, Standing
from tests.conftest import Logged
from tests.datagrams import Heard


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    with Heard(tmp_path / "notify") as it:
        yield it


class Scene:
    """A service that is looked at, and what systemd hears of it."""

    def __init__(self, heard: Heard, watchdog: float | None = None) -> None:
        self.heard = heard
        self.clock = Clock()
        self.clock.advance(1000.5)
        self.ready = False
        self.degraded = False
        self.views = [View("a", State.UNREACHABLE), View("b", State.UNREACHABLE)]
        self.standing = Standing(
            Manager(heard.path, watchdog),
            self.clock,
            asked=lambda: self.ready,
            snapshot=lambda: self.views,
            degraded=lambda: self.degraded,
        )

    def after(self, seconds: float) -> list[dict[str, str]]:
        """Say what is heard within this time."""
        self.clock.pump([seconds / 10] * 10)
        return self.heard.told()

    def start(self) -> None:
        """Start it, and let it be ready."""
        self.ready = True
        self.standing.start()
        self.heard.told()


def test_it_is_ready_when_everything_was_looked_at_once_and_not_before(heard: Heard) -> None:
    scene = Scene(heard)
    scene.standing.start()
    assert heard.told() == [{"STATUS": "looking at 2 hosts for the first time"}]
    assert scene.after(60) == []
    scene.views = [View("a", State.LIVE), View("b", State.UNREACHABLE)]
    scene.ready = True
    assert scene.after(2 * FIRST_BEAT) == [{"READY": "1", "STATUS": "2 hosts: 1 live, 1 unreachable"}]
    assert scene.after(60) == []


def test_how_it_stands_is_told_when_that_changes(heard: Heard) -> None:
    scene = Scene(heard)
    scene.start()
    scene.views = [View("a", State.POLLED), View("b", State.LIVE), View("c", State.LIVE)]
    assert scene.after(2 * BEAT) == [{"STATUS": "3 hosts: 2 live, 1 polled"}]
    scene.degraded = True
    told = {"STATUS": "3 hosts: 2 live, 1 polled; does not know what other replicas have promised"}
    assert scene.after(2 * BEAT) == [told]
    assert scene.after(2 * BEAT) == []


def test_a_fleet_without_hosts_is_told_too(heard: Heard) -> None:
    scene = Scene(heard)
    scene.views = []
    scene.ready = True
    scene.standing.start()
    assert heard.told() == [{"READY": "1", "STATUS": "0 hosts"}]


@pytest.mark.parametrize("watchdog", [3.0, 600.0])
def test_the_watchdog_hears_of_it_often_enough_once_it_is_ready(heard: Heard, watchdog: float) -> None:
    scene = Scene(heard, watchdog)
    scene.standing.start()
    assert scene.after(100) == [{"STATUS": "looking at 2 hosts for the first time"}]
    scene.ready = True
    scene.after(2 * FIRST_BEAT)
    for _ in range(20):
        scene.clock.advance(min(BEAT, watchdog / WITHIN) + 0.001)
        assert heard.told() == [{"WATCHDOG": "1"}]


def test_what_was_not_heard_is_told_again(tmp_path: Path, logged: Logged) -> None:
    with Heard(tmp_path / "notify") as first:
        scene = Scene(first)
        scene.ready = True
    (tmp_path / "notify").unlink()
    scene.standing.start()
    scene.clock.pump([FIRST_BEAT] * 10)
    assert logged.messages(LogLevel.warn) == ["systemd cannot be told how we stand: No such file or directory"]
    with Heard(tmp_path / "notify") as again:
        scene.clock.pump([FIRST_BEAT] * 2)
        assert again.told() == [{"READY": "1", "STATUS": "2 hosts: 2 unreachable"}]


def test_a_socket_that_nobody_reads_holds_nothing_up(heard: Heard) -> None:
    told = Manager(heard.path)
    while told.tell({"STATUS": "x"}):
        pass
    assert not told.tell({"READY": "1"})
    heard.told()
    assert told.tell({"READY": "1"})


def test_a_reload_is_told_with_its_time_and_its_end(heard: Heard) -> None:
    scene = Scene(heard)
    scene.start()
    during: list[dict[str, str]] = []
    scene.standing.reload(lambda: during.extend(heard.told()))
    assert during == [{"RELOADING": "1", "MONOTONIC_USEC": "1000500000"}]
    assert heard.told() == [{"READY": "1"}]


def test_a_reload_that_fails_has_ended_too(heard: Heard) -> None:
    scene = Scene(heard)
    scene.start()
    with pytest.raises(ZeroDivisionError):
        scene.standing.reload(lambda: print(1 / 0))
    assert heard.told()[-1] == {"READY": "1"}


def test_a_reload_makes_nothing_ready(heard: Heard) -> None:
    scene = Scene(heard)
    scene.standing.start()
    heard.told()
    scene.standing.reload(lambda: None)
    assert heard.told() == []


def test_that_it_goes_is_told_and_nothing_after_that(heard: Heard) -> None:
    scene = Scene(heard, watchdog=1.0)
    scene.start()
    scene.standing.stop()
    assert heard.told() == [{"STOPPING": "1", "STATUS": "answering what is in flight, then stopping"}]
    scene.standing.stop()
    assert scene.after(60) == []


def test_nobody_is_told_where_nobody_has_started_it() -> None:
    assert manager({}) is None
    assert manager({"NOTIFY_SOCKET": ""}) is None
    assert manager({"NOTIFY_SOCKET": "vsock:2:1234"}) is None


def test_who_has_started_it_may_listen_at_an_abstract_address() -> None:
    with Heard(f"@lxdsched-{os.getpid()}") as heard:
        found = manager({"NOTIFY_SOCKET": heard.path})
        assert found is not None
        assert found.tell({"READY": "1"})
        assert heard.told() == [{"READY": "1"}]


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
    ],
)
def test_the_environment_says_within_which_time_it_has_to_be_heard_of(
    environment: dict[str, str], seconds: float | None
) -> None:
    found = manager({"NOTIFY_SOCKET": "/run/nowhere", **environment})
    assert found is not None
    assert found.watchdog == seconds
