"""When a stream is opened, and opened again, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from lxdsched.fleet.client import HostError
from lxdsched.fleet.events import Event
from lxdsched.fleet.settings import Patience
from lxdsched.fleet.subscription import Subscription
from lxdsched.model import State
from tests.conftest import Logged

EVENT = Event("instance-created", "/1.0/instances/c1", "none")
REFUSED = HostError(State.UNREACHABLE, "no connection")


class Stream:
    """A stream as a test's host has it."""

    def __init__(self, heard: Callable[[Event], None], lost: Callable[[str], None]) -> None:
        self.heard = heard
        self.lost = lost
        self.open = True

    def close(self) -> None:
        self.open = False

    def end(self, reason: str = "it is gone") -> None:
        """End by itself."""
        assert self.open
        self.open = False
        self.lost(reason)


class Host:
    """A host whose stream somebody subscribes to; `told` is what they are told, and `then` what they do each time."""

    def __init__(self, random: Random | None = None) -> None:
        self.clock = Clock()
        self.told: list[object] = []
        self.then: Callable[[], None] = lambda: None
        self.cancelled = 0
        self.answers: list[Deferred[None]] = []
        self.streams: list[Stream] = []
        self.subscription = Subscription(
            self._listen,
            self.clock,
            Patience(),
            random or Random(1),
            opened=lambda: self._tell("opened"),
            heard=self._tell,
            lost=lambda reason: self._tell(f"lost: {reason}"),
            failed=lambda reason: self._tell(f"failed: {reason}"),
        )

    def _tell(self, what: object) -> None:
        self.told.append(what)
        self.then()

    async def _listen(self, heard: Callable[[Event], None], lost: Callable[[str], None]) -> Stream:
        answer: Deferred[None] = Deferred()
        self.answers.append(answer)
        try:
            await answer
        except CancelledError:
            self.cancelled += 1
            raise
        self.streams.append(Stream(heard, lost))
        return self.streams[-1]

    def agree(self) -> Stream:
        """Open the stream."""
        self.answers[-1].callback(None)
        return self.streams[-1]

    def refuse(self, error: Exception = REFUSED) -> None:
        """Do not open the stream."""
        self.answers[-1].errback(error)

    def wait(self) -> float:
        """Move the clock until the stream is tried again; return the seconds that took."""
        tried, seconds = len(self.answers), 0.0
        while len(self.answers) == tried:
            self.clock.advance(0.05)
            seconds += 0.05
            assert seconds < 100
        return seconds

    @property
    def at_rest(self) -> bool:
        """Whether nothing is open or under way, and nothing ever will be."""
        waiting = self.clock.getDelayedCalls()
        return not waiting and not any(stream.open for stream in self.streams) and self.answers[-1].called is True


@pytest.fixture
def host() -> Host:
    """A host whose stream is being opened."""
    host = Host()
    host.subscription.start()
    return host


def test_events_are_passed_on_from_the_moment_that_the_stream_is_open(host: Host) -> None:
    assert (host.subscription.open, host.subscription.reason) == (False, None)
    stream = host.agree()
    assert (host.subscription.open, host.subscription.reason) == (True, None)
    stream.heard(EVENT)
    assert host.told == ["opened", EVENT]
    assert host.clock.getDelayedCalls() == []


def test_it_is_started_once(host: Host) -> None:
    host.subscription.start()
    assert len(host.answers) == 1
    host.agree()
    host.subscription.start()
    assert len(host.answers) == 1


def test_a_stream_that_cannot_be_opened_is_tried_at_growing_jittered_intervals(host: Host) -> None:
    for number in range(9):
        host.refuse()
        assert (host.subscription.open, host.subscription.reason) == (False, "no connection")
        longest = min(2.0**number, 30.0)
        assert 0.8 * longest <= host.wait() <= longest + 0.1
    assert host.told == ["failed: no connection"] * 9


def test_after_many_failures_the_intervals_are_still_the_longest(host: Host) -> None:
    for _ in range(2000):
        host.refuse()
        host.clock.advance(30)
    host.refuse()
    assert 23.9 < host.wait() <= 30.1


def test_a_stream_that_is_lost_is_opened_again_soon(host: Host) -> None:
    host.agree().end("it closed its event stream")
    assert host.told == ["opened", "lost: it closed its event stream"]
    assert (host.subscription.open, host.subscription.reason) == (False, "it closed its event stream")
    assert host.wait() <= 0.55
    host.agree()
    assert host.told[2:] == ["opened"]
    assert (host.subscription.open, host.subscription.reason) == (True, None)


def test_not_all_who_lose_their_streams_at_once_come_back_at_once() -> None:
    random = Random(1)
    hosts = [Host(random) for _ in range(50)]
    for host in hosts:
        host.subscription.start()
        host.agree().end()
    waits = [host.wait() for host in hosts]
    assert min(waits) < 0.1
    assert max(waits) > 0.4


def test_streams_that_do_not_last_are_opened_less_and_less_often(host: Host) -> None:
    waits = []
    for _ in range(6):
        stream = host.agree()
        host.clock.advance(30)
        stream.end()
        waits.append(host.wait())
    assert waits[0] <= 0.55
    for number, seconds in enumerate(waits[1:]):
        assert 0.8 * 2.0**number <= seconds <= 2.0**number + 0.1


def test_after_a_stream_that_lasted_all_begins_anew(host: Host) -> None:
    for _ in range(6):
        host.refuse()
        host.wait()
    stream = host.agree()
    host.clock.advance(30.1)
    stream.end()
    assert host.wait() <= 0.55
    host.refuse()
    assert 0.8 <= host.wait() <= 1.1


def test_a_failure_right_after_a_loss_is_followed_by_the_first_interval(host: Host) -> None:
    host.agree().end()
    host.wait()
    host.refuse()
    assert 0.8 <= host.wait() <= 1.1


def test_an_attempt_has_a_deadline(host: Host) -> None:
    host.clock.advance(4.9)
    assert host.told == []
    host.clock.advance(0.2)
    assert host.told == ["failed: it did not open its event stream within 5 s"]
    assert host.cancelled == 1
    assert 0.7 <= host.wait() <= 1.1


def test_an_attempt_that_breaks_is_logged_and_not_the_last(host: Host, logged: Logged) -> None:
    host.refuse(ZeroDivisionError())
    (failure,) = logged.failures()
    assert failure["log_failure"].check(ZeroDivisionError)
    assert host.told == ["failed: listening to it broke something of ours; the log says what"]
    host.wait()
    host.agree()
    assert host.subscription.open


def test_a_pause_drops_the_stream_and_says_nothing(host: Host) -> None:
    stream = host.agree()
    host.subscription.pause()
    assert not stream.open
    assert host.at_rest
    assert host.told == ["opened"]
    assert (host.subscription.open, host.subscription.reason) == (False, None)
    host.subscription.pause()
    host.clock.advance(100)
    assert len(host.answers) == 1


def test_a_pause_calls_an_attempt_off_and_says_nothing(host: Host) -> None:
    host.subscription.pause()
    assert (host.cancelled, host.told) == (1, [])
    assert host.at_rest


def test_a_pause_forgets_what_was_to_be_tried(host: Host) -> None:
    host.refuse()
    host.subscription.pause()
    assert host.at_rest
    assert host.subscription.reason is None


@pytest.mark.parametrize("until", ["opening", "open", "failed"])
def test_after_a_pause_it_is_tried_at_once_and_as_if_for_the_first_time(host: Host, until: str) -> None:
    for _ in range(5):
        host.refuse()
        host.wait()
    if until == "open":
        host.agree()
    if until == "failed":
        host.refuse()
    tried = len(host.answers)
    host.subscription.pause()
    host.subscription.start()
    assert len(host.answers) == tried + 1
    host.refuse()
    assert 0.8 <= host.wait() <= 1.1
    assert sum(not answer.called for answer in host.answers) == 1


@pytest.mark.parametrize("until", ["opening", "open", "failed"])
def test_when_it_has_stopped_nothing_is_left(host: Host, until: str) -> None:
    if until == "open":
        host.agree()
    if until == "failed":
        host.refuse()
    told = list(host.told)
    stopped: list[object] = []
    Deferred.fromCoroutine(host.subscription.stop()).addBoth(stopped.append)
    assert stopped == []
    host.clock.advance(0)
    assert stopped == [None]
    assert host.at_rest
    assert host.told == told


def test_it_may_be_stopped_without_having_begun() -> None:
    host = Host()
    stopped: list[object] = []
    Deferred.fromCoroutine(host.subscription.stop()).addBoth(stopped.append)
    host.clock.advance(0)
    assert stopped == [None]
    assert host.answers == []


@pytest.mark.parametrize("moment", ["opened", "heard", "lost", "failed"])
def test_who_is_told_something_may_pause_it(host: Host, moment: str) -> None:
    if moment == "failed":
        host.then = host.subscription.pause
        host.refuse()
    elif moment == "opened":
        host.then = host.subscription.pause
        host.agree()
    else:
        stream = host.agree()
        host.then = host.subscription.pause
        if moment == "heard":
            stream.heard(EVENT)
        else:
            stream.end()
    assert host.at_rest
    host.subscription.start()
    assert len(host.answers) == 2
