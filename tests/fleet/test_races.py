"""What a host makes of answers, events and requests that overlap, on a clock that the test moves."""

from __future__ import annotations

from random import Random

import pytest
from twisted.internet.defer import CancelledError
from twisted.logger import LogLevel

from lxdsched.fleet.settings import Patience
from lxdsched.model import State
from tests.conftest import Logged
from tests.fleet.scripted import BROKEN, DESCRIBE, LIST, LISTEN, Scene, row


def test_requests_to_a_host_without_a_stream_do_not_make_its_stream_wait_later() -> None:
    scene = Scene()
    scene.client.failing[LISTEN] = BROKEN
    scene.start()
    for _ in range(1000):
        scene.request()
        scene.wait(0.02)
    del scene.client.failing[LISTEN]
    scene.wait_for(lambda: scene.state is State.LIVE)
    scene.create("c1")
    seen = scene.seen_by_request()
    scene.wait(1)
    assert seen == [(State.LIVE, {"c1"})]
    scene.stop()


def test_an_event_told_just_after_the_stream_opened_is_not_answered_by_a_listing_from_before_it() -> None:
    scene = Scene()
    scene.client.seconds[LIST] = 1.0
    scene.start(1.5)
    assert scene.listening
    assert scene.state is State.POLLED
    scene.create("c1")
    scene.wait(0.1)
    seen = scene.seen_by_request()
    scene.wait(4)
    assert seen == [(State.LIVE, {"c1"})]
    scene.stop()


def test_an_event_is_not_answered_by_a_listing_from_before_it_when_the_stream_ends_meanwhile() -> None:
    scene = Scene()
    scene.start()
    scene.client.seconds[LIST] = 1.0
    scene.tell()
    scene.wait(0.1)  # a listing is under way
    scene.create("c1")
    scene.wait(0.1)
    seen = scene.seen_by_request()
    scene.cut()
    scene.wait(4)
    assert [names for _, names in seen] == [{"c1"}]
    scene.stop()


def test_a_request_that_gave_up_leaves_a_stale_view_and_is_the_only_one_that_waited() -> None:
    scene = Scene()
    scene.start()
    scene.client.seconds[LIST] = 4.0  # under the deadline of 5 s, which two of them miss
    scene.tell()
    scene.wait(0.5)
    scene.create("c1")
    scene.wait(0.1)
    first = scene.request()
    assert scene.wait_for(lambda: first.called) == pytest.approx(5.0, abs=0.1)
    assert (scene.state, scene.names) == (State.STALE, set())
    assert scene.request().called
    scene.wait(3.5)
    assert (scene.state, scene.names) == (State.LIVE, {"c1"})
    scene.stop()


def test_a_view_stays_stale_until_the_listing_covers_the_latest_event() -> None:
    scene = Scene()
    scene.start()
    scene.client.seconds[LIST] = 4.0
    scene.tell()
    scene.wait(0.1)
    scene.tell()
    request = scene.request()
    scene.wait_for(lambda: request.called)
    for number in range(5):
        scene.create(f"c{number}")
        scene.wait(3)
        assert scene.state is State.STALE
        assert scene.request().called
    scene.wait(9)
    assert (scene.state, len(scene.names)) == (State.LIVE, 5)
    scene.stop()


def test_requests_that_went_away_or_gave_up_are_all_answered() -> None:
    scene = Scene()
    scene.start()
    listings = scene.count(LIST)
    scene.client.held.add(LIST)
    scene.tell()
    requests = [scene.request() for _ in range(200)]
    for request in requests[::2]:
        request.addErrback(lambda failure: failure.trap(CancelledError) and None)
        request.cancel()
    scene.wait(5.1)
    assert all(request.called for request in requests)
    assert scene.count(LIST) == listings + 1
    scene.client.held.clear()
    scene.stop()


def test_slow_resources_are_asked_for_again_only_when_that_is_due() -> None:
    scene = Scene(patience=Patience(poll=5.0, capacity=60.0))
    scene.start()
    scene.client.held.add(DESCRIBE)
    scene.wait(150)
    assert scene.state is State.LIVE
    assert 2 <= scene.count(DESCRIBE) - 1 <= 3
    scene.stop()


def test_a_host_that_lists_only_every_other_time_is_probed_less_and_less_until_it_has_been_well_for_long() -> None:
    scene = Scene()

    def flap(question: str) -> None:
        if question == LIST and scene.client.failing.pop(LIST, None) is None:
            scene.client.failing[LIST] = BROKEN

    scene.client.before = flap
    scene.start(120)
    assert scene.count(DESCRIBE) < 20
    scene.client.before = lambda _question: None
    scene.client.failing.clear()
    scene.wait_for(lambda: scene.state is State.LIVE)
    scene.wait(60)
    scene.client.failing[LIST] = BROKEN
    scene.tell()
    scene.wait(0.1)
    assert scene.state is State.UNREACHABLE
    scene.client.failing.clear()
    assert scene.wait_for(lambda: scene.state is not State.UNREACHABLE) < 1.1
    scene.stop()


def test_a_clock_that_is_set_back_does_not_stop_the_listings() -> None:
    scene = Scene()
    scene.start()
    scene.clock.rightNow -= 3600
    scene.create("c1")
    for _ in range(100):
        scene.clock.advance(0.01)
    assert scene.names == {"c1"}
    scene.stop()


def test_a_host_connected_to_anew_after_its_stream_ended_is_soon_asked_for_its_size() -> None:
    scene = Scene()
    scene.start()
    scene.cut()
    scene.client.connected += 1
    assert scene.wait_for(lambda: scene.count(DESCRIBE) > 1) < 12
    scene.stop()


def test_a_doubtful_instance_is_logged_once_whatever_becomes_of_its_host(logged: Logged) -> None:
    scene = Scene()
    scene.client.rows.append(row("odd", cpu="nonsense"))
    scene.start()
    states = [scene.state]
    scene.client.failing[LIST] = BROKEN
    scene.tell()
    scene.wait(0.1)
    states.append(scene.state)
    scene.client.failing.clear()
    scene.wait(20)
    states.append(scene.state)
    assert states == [State.DOUBTFUL, State.UNREACHABLE, State.DOUBTFUL]
    scene.client.rows.append(row("odder", cpu="nonsense"))
    scene.tell()
    scene.wait(1)
    told = [line for line in logged.messages(LogLevel.warn) if "is doubtful" in line]
    assert ["odder" in line for line in told] == [False, True]
    scene.stop()


def test_a_stale_host_whose_stream_ends_is_logged_once(logged: Logged) -> None:
    scene = Scene()
    scene.start()
    scene.client.held.add(LIST)
    scene.tell()
    scene.wait(5.2)
    assert scene.state is State.STALE
    scene.cut()
    scene.wait(0.1)
    assert len(logged.messages(LogLevel.warn)) == 1
    scene.stop()


def test_a_stale_host_that_takes_long_to_describe_itself_stays_stale() -> None:
    scene = Scene()
    scene.start()
    scene.client.held.add(LIST)
    scene.tell()
    scene.wait(5.2)
    scene.client.seconds[DESCRIBE] = 2.6  # past the moment at which a slow listing has the host greeted
    seen = set()
    for _ in range(120):
        scene.wait(0.1)
        seen.add(scene.state)
    assert seen == {State.STALE}
    scene.stop()


@pytest.mark.parametrize("clustered", [False, True])
def test_a_host_may_be_stopped_at_any_moment(clustered: bool) -> None:
    for tenths in range(0, 140, 3):
        scene = Scene(clustered=clustered)
        scene.client.seconds[LIST] = 0.25
        scene.start(0)
        for step in range(tenths):
            scene.wait(0.1)
            if step in {20, 60}:
                scene.tell()
            elif step == 30:
                scene.cut()
            elif step == 59:
                scene.client.failing[LIST] = BROKEN
            elif step == 80:
                scene.client.failing.clear()
        scene.stop()


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_a_view_that_needs_no_question_has_all_that_was_told_and_every_host_recovers(
    seed: int,
) -> None:
    random = Random(seed)
    scene = Scene(clustered=random.random() < 0.5)
    client, host = scene.client, scene.host
    told: set[str] = set()
    scene.start(0)
    for step in range(300):
        match random.choices(["create", "cut", "break", "mend", "slow", "deaf", "nothing"], [15, 3, 2, 5, 2, 2, 71]):
            case ["create"]:
                scene.create(f"c{step}")
                if scene.listening:
                    told = {each.name for each in client.rows}
            case ["cut"] if scene.listening:
                scene.cut()
            case ["break"]:
                client.failing[LIST] = BROKEN
            case ["mend"]:
                client.failing.pop(LIST, None)
            case ["slow"]:
                client.seconds[LIST] = random.choice((0.0, 0.05, 0.5, 2.0, 6.0))
            case ["deaf"]:
                client.failing.pop(LISTEN, None) or client.failing.update({LISTEN: BROKEN})
        scene.wait(random.choice((0.01, 0.05, 0.1, 0.3, 1.0)))
        if host.settled and scene.state is State.LIVE:
            assert told <= scene.names
        assert ("h" in scene.fleet._unsettled) is not host.settled
    client.failing.clear()
    client.seconds.clear()
    scene.wait(150)
    assert (scene.state, host.settled) == (State.LIVE, True)
    assert scene.names == {each.name for each in client.rows}
    scene.stop()
