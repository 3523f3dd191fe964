"""What every test is held to: it leaves nothing running, and nothing has failed behind its back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import cast

import hypothesis
import pytest
from twisted.internet import reactor  # noqa: TID251  # the tests run on the global reactor
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher

# The machines that run this are slow and noisy: how long a case takes proves nothing.
hypothesis.settings.register_profile(
    "lxdsched",
    deadline=None,
    max_examples=round(100 * float(os.environ.get("LXDSCHED_FUZZ_EXAMPLES") or 1)),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
)
hypothesis.settings.load_profile("lxdsched")

pytest_plugins = ["tests.lxd.fixtures", "tests.redis.fixtures"]


class Logged(list[LogEvent]):
    """The events of one test. A test that expects a failure in the log takes it away with `failures`."""

    def failures(self) -> list[LogEvent]:
        """Take away and return every logged failure."""
        found = [event for event in self if event.get("log_failure") or event.get("log_level") is LogLevel.critical]
        self[:] = [event for event in self if event not in found]
        return found

    def messages(self, level: LogLevel) -> list[str]:
        """Return the messages of a level, formatted."""
        return [formatEvent(event) for event in self if event.get("log_level") is level]


@pytest.fixture(autouse=True)
def logged() -> Iterator[Logged]:
    """Collect what is logged, and fail the test for a failure that it did not expect."""
    events = Logged()
    observer = cast(ILogObserver, events.append)
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)
    left = [str(event["log_failure"]) for event in events.failures() if event.get("log_failure")]
    assert not left, "\n".join(["failures were logged:", *left])


def _open() -> dict[int, object]:
    """Everything that the reactor holds open now, but for its own wakers."""
    readers = [each for each in reactor.getReaders() if type(each).__module__ != "twisted.internet._signals"]
    return {id(each): each for each in [*reactor.getDelayedCalls(), *readers]}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves delayed calls or open sockets in the reactor."""
    before = _open()
    yield
    left = [str(each) for key, each in _open().items() if key not in before]
    assert not left, f"left behind: {left}"
