"""What a host makes of answers that overlap where its drain is asked about besides, as a cluster's members' are."""

from __future__ import annotations

from lxdsched.fleet.settings import Patience
from lxdsched.model import State
from tests.conftest import Logged
from tests.fleet.scripted import BROKEN, CONFIGURED, DESCRIBE, DRAINED, LIST, Scene

ADMIN = "drained by an admin"


def moment_of(question: str, *, clustered: bool, patience: Patience | None = None) -> float:
    """Say how long after the start a host that is left alone asks this the next time."""
    scene = Scene(clustered=clustered, patience=patience)
    scene.start()
    before = scene.count(question)
    seconds = 2.0 + scene.wait_for(lambda: scene.count(question) > before)
    scene.stop()
    return seconds


def pace(scene: Scene) -> None:
    """Have the host listed so often that the next listing has to wait, within 0.03 s."""
    for _ in range(3):
        scene.tell()
        scene.wait(0.01)


def test_a_member_of_a_cluster_that_failed_once_is_probed_by_a_listing() -> None:
    scene = Scene(clustered=True)
    scene.start()
    scene.client.failing[LIST] = BROKEN
    scene.tell()
    scene.wait(0.1)
    assert scene.state is State.UNREACHABLE
    scene.client.failing.clear()
    assert scene.wait_for(lambda: scene.state is not State.UNREACHABLE) < 1.1
    scene.stop()


def test_a_look_asked_for_earlier_does_not_undo_what_a_later_one_found() -> None:
    scene = Scene(clustered=True)
    scene.start()
    scene.client.held.add(DRAINED)
    scene.wait_for(lambda: scene.client.waiting(DRAINED) == 1)
    scene.client.held.clear()
    scene.client.drain = ADMIN
    scene.tell(CONFIGURED)
    scene.wait(0.5)
    assert scene.state is State.DRAINED
    scene.client.answer(DRAINED)
    scene.wait(0.1)
    assert scene.state is State.DRAINED
    scene.stop()


def test_a_doubt_that_comes_up_during_a_look_is_not_answered_by_it() -> None:
    scene = Scene(clustered=True)
    scene.start()
    scene.client.held.add(DRAINED)
    scene.wait_for(lambda: scene.client.waiting(DRAINED) == 1)
    scene.client.drain = ADMIN
    scene.tell(CONFIGURED)
    seen = scene.seen_by_request()
    scene.wait(0.5)
    assert scene.client.waiting(DRAINED) == 2
    scene.client.answer(DRAINED)  # as it was before the event
    scene.wait(0.5)
    assert seen == []
    scene.client.answer(DRAINED)
    scene.wait(0.1)
    assert seen == [(State.DRAINED, set())]
    scene.stop()


def test_a_doubt_is_not_answered_by_a_look_from_before_it_that_ends_before_the_next_listing() -> None:
    scene = Scene(clustered=True)
    scene.start()
    scene.client.held.update({DRAINED, LIST})
    scene.wait_for(lambda: scene.client.waiting(DRAINED) == 1)
    scene.tell()
    scene.wait(0.1)
    assert scene.client.waiting(LIST) == 1
    scene.client.drain = ADMIN
    scene.tell(CONFIGURED)
    scene.client.held.clear()
    scene.client.answer(DRAINED)
    scene.client.answer(LIST)
    scene.wait(0.5)
    assert scene.state is State.DRAINED
    scene.stop()


def test_a_look_under_way_is_not_taken_for_its_answer() -> None:
    moment = moment_of(DRAINED, clustered=True)
    scene = Scene(clustered=True)
    scene.start(moment - 0.05)
    pace(scene)
    scene.client.held.add(DRAINED)
    scene.client.drain = ADMIN
    scene.tell(CONFIGURED)
    scene.wait(0.03)
    assert scene.client.waiting(DRAINED) == 1  # the listing that follows the event still waits
    seen = scene.seen_by_request()
    scene.wait(1)
    assert seen == []
    scene.client.held.clear()
    while scene.client.waiting(DRAINED):
        scene.client.answer(DRAINED)
    scene.wait(1)
    assert seen == [(State.DRAINED, set())]
    scene.stop()


def test_a_doubt_outlives_a_description_that_does_not_come() -> None:
    patience = Patience(poll=5.0, capacity=10.0)
    moment = moment_of(DESCRIBE, clustered=False, patience=patience)
    scene = Scene(patience=patience)
    scene.start(moment - 0.05)
    pace(scene)
    scene.client.held.add(DESCRIBE)
    scene.client.drain = ADMIN
    scene.tell(CONFIGURED)
    scene.wait(0.3)
    assert scene.client.waiting(DESCRIBE) == 1  # and the event and the turn share this question
    scene.wait(3)
    assert scene.state is State.DRAINED
    scene.stop()


def test_turns_that_overlapped_end_with_the_host() -> None:
    scene = Scene(clustered=True)
    scene.start()
    scene.client.held.add(DRAINED)
    scene.wait_for(lambda: scene.client.waiting(DRAINED) == 1)
    scene.cut()  # and another turn begins beside the first
    scene.wait(0.6)
    scene.stop()


def test_turns_go_on_after_a_look_that_broke_something_of_ours(logged: Logged) -> None:
    scene = Scene(clustered=True)
    scene.start()
    scene.client.failing[DRAINED] = TypeError("odd")
    scene.wait_for(lambda: scene.count(DRAINED) > 1, most=15)
    scene.wait(0.1)
    scene.client.failing.clear()
    assert logged.failures()
    asked = scene.count(LIST)
    scene.wait(60)
    assert scene.count(LIST) > asked
    assert scene.state is State.LIVE
    scene.stop()


def test_a_member_of_a_cluster_that_is_connected_to_anew_is_soon_asked_for_its_size() -> None:
    scene = Scene(clustered=True)
    scene.start(12)
    scene.client.connected += 1
    scene.tell()
    assert scene.wait_for(lambda: scene.count(DESCRIBE) > 1) < 8
    scene.stop()
