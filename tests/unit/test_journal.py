"""The journal has every event with its level and its fields."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import Logger, LogPublisher

from lxdsched.systemd import journal
from tests.datagrams import Heard


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    with Heard(tmp_path / "journal") as it:
        yield it


def logger(heard: Heard, level: str = "INFO") -> Logger:
    return Logger("test", observer=LogPublisher(journal.observer(level, heard.path)))


def test_an_event_has_its_message_its_level_and_its_fields(heard: Heard) -> None:
    logger(heard).warn("host {host} has {cpu} cores", host="https://a", cpu=4, free=None, tags=["x"], log_aside=": so")
    assert heard.told() == [
        {
            "MESSAGE": "host https://a has 4 cores: so",
            "PRIORITY": "4",
            "SYSLOG_IDENTIFIER": "lxdsched",
            "LXDSCHED_HOST": "https://a",
            "LXDSCHED_CPU": "4",
            "LXDSCHED_FREE": "null",
            "LXDSCHED_TAGS": '["x"]',
        }
    ]


def test_levels_are_those_of_syslog_and_lower_ones_are_left_out(heard: Heard) -> None:
    log = logger(heard)
    for level in ("debug", "info", "warn", "error", "critical"):
        getattr(log, level)("x")
    assert [told["PRIORITY"] for told in heard.told()] == ["6", "4", "3", "3"]


def test_a_traceback_follows_its_message_in_lines(heard: Heard) -> None:
    log = logger(heard)
    try:
        print(1 / 0)
    except ZeroDivisionError:
        log.failure("it broke")
    (told,) = heard.told()
    assert told["MESSAGE"].startswith("it broke\n  Traceback")
    assert "ZeroDivisionError" in told["MESSAGE"]


def test_a_field_in_lines_cannot_pass_for_another_field(heard: Heard) -> None:
    logger(heard).info("x", said="a\nPRIORITY=0\nMESSAGE=y", half="é\udc80")
    (told,) = heard.told()
    assert told["MESSAGE"] == "x"
    assert told["PRIORITY"] == "6"
    assert told["LXDSCHED_SAID"] == "a\nPRIORITY=0\nMESSAGE=y"
    assert told["LXDSCHED_HALF"] == "é?"


def test_a_name_is_one_that_the_journal_takes(heard: Heard) -> None:
    logger(heard).info("x", **{"a-b=\né": 1, "n" * 64: 2})
    (told,) = heard.told()
    assert told["LXDSCHED_A_B___"] == "1"
    assert told["LXDSCHED_" + "N" * 55] == "2"


def test_what_is_too_long_for_a_datagram_loses_its_fields_and_not_its_message(heard: Heard) -> None:
    logger(heard).info("{a} is long", **{chr(97 + number): "é" * 4096 for number in range(26)})
    (told,) = heard.told()
    assert told["MESSAGE"].endswith("is long")
    assert set(told) == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"}


def test_a_journal_that_is_too_slow_is_not_waited_for_and_told_how_many_are_lost(heard: Heard) -> None:
    log = logger(heard)
    for number in range(2000):
        log.info("{number}", number=number)
    came = heard.told()
    assert 0 < len(came) < 2000
    log.info("again")
    lost, again = heard.told()
    assert lost["MESSAGE"] == f"{2000 - len(came)} events before this one are lost"
    assert lost["PRIORITY"] == "4"
    assert again["MESSAGE"] == "again"
    log.info("and again")
    assert [told["MESSAGE"] for told in heard.told()] == ["and again"]


def test_a_journal_that_is_started_again_has_what_comes_then(tmp_path: Path) -> None:
    with Heard(tmp_path / "journal") as first:
        log = logger(first)
    log.info("nobody hears")
    (tmp_path / "journal").unlink()
    log.info("nobody is there")
    with Heard(tmp_path / "journal") as again:
        log.info("here")
        assert [told["MESSAGE"] for told in again.told()] == ["2 events before this one are lost", "here"]


def test_where_there_is_none_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(journal.JournalError, match=r"cannot be reached: .*/none: No such file or directory"):
        journal.observer("INFO", str(tmp_path / "none"))


def test_systemd_says_which_stream_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        found = os.fstat(stream.fileno())
        ours = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert journal.is_journal(stream, ours)
        assert not journal.is_journal(stream, {})
        assert not journal.is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not journal.is_journal(sys.stderr, ours)
    assert not journal.is_journal(stream, ours)
