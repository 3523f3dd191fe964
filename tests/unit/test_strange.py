"""What the log says of what is in Redis and not ours."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel

from lxdsched.ledger.records import Entry
from lxdsched.ledger.strange import MINUTE, MOST_ODD, MOST_SAID, Strangers
from tests.conftest import Logged


def look(strangers: Strangers, ids: range) -> None:
    """Find records that are none, as an answer tells them."""
    for number in ids:
        strangers.found(Entry(str(number), b"{}", None), "a", f"the record {number} is none")
    strangers.sum_up()


def said(logged: Logged) -> list[str]:
    """Take away what was said."""
    messages = [each.removeprefix("the shared ledger holds ") for each in logged.messages(LogLevel.error)]
    logged.clear()
    return messages


def test_what_is_not_ours_is_said_once(logged: Logged) -> None:
    strangers = Strangers(Clock())
    for _ in range(3):
        look(strangers, range(2))
    assert said(logged) == [f"what is not ours: the record {number} is none" for number in range(2)]
    assert strangers.knows(Entry("1", b"{}", None), "a")
    assert not strangers.knows(Entry("1", b"{}", None), "b"), "there, it may be one"
    assert not strangers.knows(Entry("1", b"{...}", None), "a"), "it has become another one"
    assert not strangers.knows(Entry("2", b"{}", None), "a")


def test_of_a_hundred_thousand_ten_are_said_and_a_number_and_nothing_more_for_a_minute(logged: Logged) -> None:
    clock = Clock()
    strangers = Strangers(clock)
    for _ in range(5):
        look(strangers, range(100_000))
        clock.advance(MINUTE / 6)
    assert said(logged) == [
        *[f"what is not ours: the record {number} is none" for number in range(MOST_SAID)],
        f"more that is not ours, {100_000 - MOST_SAID} times: of that no more is said for a minute",
    ]
    assert len(strangers) == MOST_ODD
    clock.advance(MINUTE / 6)
    look(strangers, range(100_000))
    again = said(logged)
    assert len(again) == MOST_SAID + 1
    assert "what is not ours: the record 0 is none" not in again, "what is known is not said again"


def test_a_redis_that_is_joined_anew_does_not_have_it_all_said_again_at_once(logged: Logged) -> None:
    strangers = Strangers(Clock())
    for _ in range(5):
        look(strangers, range(100))
        strangers.forget()
    assert len(said(logged)) == MOST_SAID + 1
    assert len(strangers) == 0
