"""Log lines of events that nobody has foreseen."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from lxdsched import logs
from tests.fuzz import oracles
from tests.fuzz.grown import anything


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Chatty:
    def __str__(self) -> str:
        return "\x1b[2J\ud800\n" * 100_000


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


def failure(text: str, *, unsayable: bool = False) -> Failure:
    class Unsayable(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError("no")

    try:
        raise Unsayable if unsayable else ValueError(text)
    except Exception:
        return Failure()


ODD = [
    None,
    float("nan"),
    float("inf"),
    10**30,
    10**5000,
    -1,
    Decimal("NaN"),
    b"\xff\x00",
    "x" * 1_000_000,
    "\x00" * 1_000_000,
    "\ud800",
    ["\udcff" * 10],
    {"a": ["b" * 1_000_000]},
    {1: 2, (3,): 4},
    {"\ud800": 1},
    {1, 2},
    object,
    Mute(),
    [Mute()],
    Chatty(),
    endless(),
    deep(),
    failure("\n00:00:00 INFO  all is well\x1b[2J\ud800"),
    failure("x" * 1_000_000),
    failure("", unsayable=True),
    *LogLevel.iterconstants(),
]

# What Twisted reads in an event, and what it must not be forged into.
KEYS = [
    "host",
    "msg",
    "time",
    "level",
    "error",
    "log_time",
    "log_level",
    "log_format",
    "log_text",
    "log_failure",
    "log_namespace",
    "log_source",
    "log_system",
    "log_logger",
]
values = st.sampled_from(ODD) | anything | st.binary()


@given(st.dictionaries(st.sampled_from(KEYS) | st.text() | st.integers(), values, max_size=6))
def test_any_event_is_one_line(event: dict[Any, Any]) -> None:
    oracles.event(event)


@given(
    st.text(), st.sampled_from(["{0}", "{", "}", "{x.y}", "{x[0]}", "{x!r}", "{x:>9}", "{x()}", "{}", "{x!z}"]), values
)
def test_any_message_is_one_line(text: str, field: str, value: Any) -> None:
    oracles.event({"log_format": text + field, "x": value, "log_time": 1.0, "log_level": LogLevel.warn})


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
@pytest.mark.parametrize("key", KEYS)
def test_any_odd_value_under_any_key(key: str, odd: object) -> None:
    with oracles.cpu_seconds():
        oracles.event({"log_format": "{x}", "x": odd, "log_time": 1.0, key: odd})


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
def test_a_field_that_cannot_be_written_does_not_cost_the_others(odd: object) -> None:
    line = json.loads(logs.as_json({"log_format": "x", "log_time": 1.0, "odd": odd, "host": "node-1", "cpu": 2}))
    assert (line["msg"], line["host"], line["cpu"]) == ("x", "node-1", 2)
    assert "odd" in line


def test_an_event_of_thousands_of_fields_is_a_line_of_bounded_length() -> None:
    oracles.event({f"{number}{'k' * 1000}": "\x00" * 10_000 for number in range(10_000)} | {"log_format": "x"})


def test_a_traceback_on_a_terminal_forges_no_line() -> None:
    stream = io.StringIO()
    observer = logs.observer(stream, "INFO", "text")
    broke = failure("\n00:00:00 INFO  all is well\x1b[2J")
    Logger(namespace="test", observer=LogPublisher(observer)).failure("it broke", broke)
    first, *more = stream.getvalue().splitlines()
    assert first.endswith(" ERROR it broke")
    assert "  00:00:00 INFO  all is well\\x1b[2J" in more
    assert all(line.startswith("  ") for line in more)
