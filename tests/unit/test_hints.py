"""What events mean, and whether a host is to be left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from lxdsched.fleet.drain import drain_by_cluster, drain_by_config
from lxdsched.fleet.events import UNCLEAR, Event
from lxdsched.fleet.hints import Hint, read_hint
from lxdsched.fleet.pace import Pace
from lxdsched.fleet.payloads import Member, open_envelope, open_metadata
from lxdsched.model import Capacity, Resources

DATA = Path(__file__).parent.parent / "data" / "lxd"


def host(*, clustered: bool = False) -> Capacity:
    size = Resources(2000, 2**30)
    return Capacity("k1", size, size, frozenset({0, 1}), frozenset(), frozenset(), clustered)


@pytest.mark.parametrize(
    ("action", "hint"),
    [
        ("instance-created", Hint.INSTANCES),
        ("instance-started", Hint.INSTANCES),
        ("instance-paused", Hint.INSTANCES),
        ("instance-updated", Hint.INSTANCES),
        ("instance-deleted", Hint.INSTANCES),
        ("instance-something-new", Hint.INSTANCES),
        ("profile-updated", Hint.INSTANCES),
        ("certificate-deleted", Hint.INSTANCES),
        ("config-updated", Hint.STANDING),
        ("cluster-member-updated", Hint.STANDING),
        ("", Hint.STANDING),
        ("instance-exec", Hint.NOTHING),
        ("instance-snapshot-created", Hint.NOTHING),
        ("instance-file-pushed", Hint.NOTHING),
        ("image-created", Hint.NOTHING),
        ("storage-volume-updated", Hint.NOTHING),
    ],
)
def test_an_event_means_what_has_to_be_asked_again(action: str, hint: Hint) -> None:
    assert read_hint(Event(action, "/1.0/x", "none"), host()) is hint
    assert read_hint(Event(action, "/1.0/x", "none"), None) is hint


def test_what_cannot_be_understood_may_have_meant_anything() -> None:
    assert read_hint(UNCLEAR, host()) is Hint.STANDING


@pytest.mark.parametrize(
    ("action", "here", "there"),
    [
        ("instance-started", Hint.INSTANCES, Hint.NOTHING),
        ("instance-paused", Hint.INSTANCES, Hint.NOTHING),
        ("instance-created", Hint.INSTANCES, Hint.INSTANCES),
        ("instance-updated", Hint.INSTANCES, Hint.INSTANCES),
        ("instance-migrated", Hint.INSTANCES, Hint.INSTANCES),
        ("config-updated", Hint.STANDING, Hint.STANDING),
    ],
)
def test_what_an_instance_does_on_another_member_does_not_matter_here(action: str, here: Hint, there: Hint) -> None:
    assert read_hint(Event(action, "/1.0/instances/a", "k1"), host(clustered=True)) is here
    assert read_hint(Event(action, "/1.0/instances/a", ""), host(clustered=True)) is here
    assert read_hint(Event(action, "/1.0/instances/a", "k2"), host(clustered=True)) is there
    assert read_hint(Event(action, "/1.0/instances/a", "k2"), host()) is here


@pytest.mark.parametrize("value", ["true", "True", "1", "yes", "on", "k1", "k1,k2", " k2 , k1 "])
def test_a_server_is_drained_by_its_configuration(value: str) -> None:
    reason = drain_by_config({"user.lxdsched.drain": value}, "k1")
    assert reason == f"it is drained: its configuration says user.lxdsched.drain={value}"


@pytest.mark.parametrize("value", ["", "false", "0", "no", "off", "k2", "k11", "k", 1, None, ["k1"]])
def test_a_server_is_not_drained_by_what_does_not_mean_it(value: object) -> None:
    assert drain_by_config({"user.lxdsched.drain": value}, "k1") is None
    assert drain_by_config({}, "k1") is None


def test_what_a_host_writes_is_not_passed_on_at_any_length() -> None:
    assert len(drain_by_config({"user.lxdsched.drain": "k1," + "x" * 10_000}, "k1") or "") < 300


@pytest.mark.parametrize(
    ("status", "config", "reason"),
    [
        ("Online", {}, None),
        ("Online", {"scheduler.instance": "all"}, None),
        ("Online", {"scheduler.instance": "group"}, None),
        ("Online", {"scheduler.instance": "manual"}, "scheduler.instance=manual"),
        ("Evacuated", {}, "Evacuated"),
        ("Blocked", {}, "Blocked"),
        ("Offline", {}, "Offline"),
        ("Evacuating", {}, "Evacuating"),
    ],
)
def test_a_member_is_left_alone_by_its_cluster(status: str, config: dict[str, str], reason: str | None) -> None:
    said = drain_by_cluster(Member(status, "a message", config))
    assert said is None if reason is None else reason in (said or "")


def test_a_real_cluster_tells_which_member_is_evacuated() -> None:
    envelope = open_envelope((DATA / "cluster" / "k1-cluster-members-k2-evacuated.json").read_bytes())
    said = [drain_by_cluster(member) for member in open_metadata(envelope, list[Member])]
    assert said == [None, "its cluster says that it is Evacuated: Unavailable due to maintenance", None]


def test_a_few_times_may_come_at_once_and_then_one_after_the_other() -> None:
    clock = Clock()
    clock.advance(100)
    pace = Pace(clock, interval=0.2, burst=3)
    waits = []
    for _ in range(6):
        waits.append(round(pace.wait(), 3))
        clock.advance(pace.wait())
        pace.count()
    assert waits == [0, 0, 0, 0.2, 0.2, 0.2]
    clock.advance(60)
    for _ in range(3):
        assert pace.wait() == 0
        pace.count()
    assert pace.wait() > 0
