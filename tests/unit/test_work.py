"""Long work in turns."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lxdsched.fleet.work import TURN, Work, at_once, in_turns


class Slow:
    """Work whose every step takes some of a clock's time."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.steps = 0
        self._clock = clock
        self._seconds = seconds

    def do(self, steps: int) -> Work[str]:
        for _ in range(steps):
            self.steps += 1
            self._clock.rightNow += self._seconds
            yield
        return "done"


def test_work_that_is_done_at_once_has_its_result() -> None:
    assert at_once(Slow(Clock(), 1.0).do(5)) == "done"


def test_short_work_takes_one_turn() -> None:
    clock = Clock()
    done = Deferred.fromCoroutine(in_turns(clock, Slow(clock, TURN / 10).do(9)))
    assert done.result == "done"


def test_long_work_rests_as_long_as_it_works() -> None:
    clock = Clock()
    slow = Slow(clock, TURN / 4)
    done = Deferred.fromCoroutine(in_turns(clock, slow.do(10)))
    assert slow.steps == 4
    assert not done.called
    clock.advance(TURN / 2)
    assert slow.steps == 4
    clock.advance(TURN / 2)
    assert slow.steps in {8, 9}  # as the clock rounds
    clock.advance(TURN)
    assert done.result == "done"


def test_work_that_is_called_off_is_left_and_leaves_nothing_behind() -> None:
    clock = Clock()
    slow = Slow(clock, TURN)
    done = Deferred.fromCoroutine(in_turns(clock, slow.do(10)))
    done.addErrback(lambda _: None)
    done.cancel()
    assert (slow.steps, clock.getDelayedCalls()) == (1, [])


def test_a_clock_that_is_set_back_ends_the_turn() -> None:
    clock = Clock()
    slow = Slow(clock, -1.0)
    done = Deferred.fromCoroutine(in_turns(clock, slow.do(2)))
    assert slow.steps == 1
    done.addErrback(lambda _: None)
    done.cancel()
