"""Log lines, for programs and for people."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from lxdsched import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logger(stream: io.StringIO, level: str = "INFO", form: str = "auto") -> Logger:
    publisher = LogPublisher(logs.observer(stream, level, form))
    return Logger(namespace="test", observer=publisher)


def only_line(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_a_line_is_an_object_with_time_level_message_and_the_events_fields() -> None:
    stream = io.StringIO()
    logger(stream).warn("host {host} is {state}", host="node-1", state="unreachable", cpu=2)
    line = only_line(stream)
    assert list(line) == ["time", "level", "msg", "host", "state", "cpu"]
    assert line["time"].endswith("Z")
    assert line["time"][10] == "T"
    assert (line["level"], line["msg"], line["cpu"]) == ("WARN", "host node-1 is unreachable", 2)


@pytest.mark.parametrize(
    ("level", "seen"),
    [("DEBUG", ["DEBUG", "INFO", "WARN", "ERROR"]), ("INFO", ["INFO", "WARN", "ERROR"]), ("ERROR", ["ERROR"])],
)
def test_levels_are_named_as_in_go_and_lower_ones_are_left_out(level: str, seen: list[str]) -> None:
    stream = io.StringIO()
    log = logger(stream, level)
    for each in (LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error):
        log.emit(each, "x")
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == seen


def test_a_failure_carries_its_error_and_traceback() -> None:
    stream = io.StringIO()
    try:
        raise ValueError("spilt")
    except ValueError:
        logger(stream).failure("carrying {what} broke", Failure(), what="milk")
    line = only_line(stream)
    assert (line["level"], line["msg"], line["error"]) == ("ERROR", "carrying milk broke", "spilt")
    assert "test_logs.py" in line["traceback"]


def test_a_message_with_line_breaks_stays_one_line() -> None:
    stream = io.StringIO()
    logger(stream).info("{text}", text='a\n"b"\x00')
    assert only_line(stream)["msg"] == 'a\n"b"\x00'


def test_no_program_finds_the_end_of_a_line_within_one() -> None:
    stream, text = io.StringIO(), "a\x85b\u2028c\u2029d\x9b31m\x7fé"
    logger(stream).info("{text}", text=text)
    assert only_line(stream)["text"] == text
    assert "é" in stream.getvalue()
    assert stream.getvalue()[:-1].isprintable()


def test_del_does_not_make_a_line_one_that_journald_takes_for_no_text() -> None:
    stream = io.StringIO()
    logger(stream).info("GET {path}", path="/hidden\x7f")
    assert only_line(stream)["path"] == "/hidden\x7f"
    assert "\x7f" not in stream.getvalue()


def test_a_sentence_that_is_a_whole_message_is_told_once() -> None:
    stream, sentence = io.StringIO(), "there is no {access} control"
    logger(stream).warn("{log_said}", log_said=sentence)
    assert only_line(stream)["msg"] == sentence
    assert stream.getvalue().count("control") == 1
    for source in Path(logs.__file__).parent.rglob("*.py"):
        assert set(re.findall(r'"\{(\w+)\}",', source.read_text())) <= {"log_said"}, source


def test_a_field_that_is_no_json_is_shown_as_text() -> None:
    stream = io.StringIO()
    logger(stream).info("x", where=io.StringIO, what={1, 2})
    assert "StringIO" in only_line(stream)["where"]


def test_a_field_that_breaks_does_not_cost_the_line() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    stream = io.StringIO()
    logger(stream).info("still here", field=Broken())
    assert only_line(stream)["msg"] == "still here"


def test_on_a_terminal_a_line_is_for_a_person() -> None:
    stream = Terminal()
    logger(stream).warn("host {host} is gone", host="node-1")
    assert stream.getvalue()[8:] == " WARN  host node-1 is gone\n"


def test_what_fields_say_in_json_follows_the_message_for_a_person() -> None:
    stream, terminal = io.StringIO(), Terminal()
    for each in (stream, terminal):
        logger(each).info("GET {path} 401", path="/hosts", log_aside=" for x\n: why")
    assert list(only_line(stream)) == ["time", "level", "msg", "path"]
    assert only_line(stream)["msg"] == "GET /hosts 401"
    assert terminal.getvalue()[8:] == " INFO  GET /hosts 401 for x\\n: why\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Admission starting on 8080", False),
        ("(TCP Port 8080 Closed)", False),
        ("reactor class: x.y.", False),
        ("Main loop terminated.", False),
        ("Unable to write to plugin cache /usr/lib/x/dropin.cache: error number 13", False),
        ("Received SIGTERM, shutting down.", True),
    ],
)
def test_what_twisted_says_of_its_own_parts_is_for_debugging(said: str, shown: bool) -> None:
    for level, expected in (("INFO", shown), ("DEBUG", True)):
        stream = io.StringIO()
        publisher = LogPublisher(logs.observer(stream, level, "text"))
        for namespace in ("log_legacy", "twisted.internet.base"):
            Logger(namespace=namespace, observer=publisher).info("{log_text}", log_text=said)
        assert stream.getvalue().count(said) == 2 * expected
        logger(stream, level).info(said)
        assert stream.getvalue().count(said) == 2 * expected + 1


def test_what_twisted_complains_of_is_shown() -> None:
    stream = io.StringIO()
    publisher = LogPublisher(logs.observer(stream, "INFO", "text"))
    Logger(namespace="log_legacy", observer=publisher).warn("x starting on y")
    assert "starting on" in stream.getvalue()


def test_on_a_terminal_nobodys_text_forges_a_line() -> None:
    stream = Terminal()
    logger(stream).warn("host says {text}", text="x\n00:00:00 INFO  all is well\x1b[2J")
    assert stream.getvalue()[8:] == " WARN  host says x\\n00:00:00 INFO  all is well\\x1b[2J\n"


def test_half_of_a_surrogate_pair_does_not_cost_the_line() -> None:
    stream, terminal = io.StringIO(), Terminal()
    for each in (stream, terminal):
        logger(each).info("{name} is set", name="LXD_\udcff")
    assert only_line(stream)["msg"] == "LXD_? is set"
    assert terminal.getvalue().endswith("LXD_? is set\n")


def test_the_form_can_be_forced_either_way() -> None:
    stream, terminal = io.StringIO(), Terminal()
    logger(stream, form="text").info("x")
    logger(terminal, form="json").info("x")
    assert stream.getvalue().endswith("INFO  x\n")
    assert only_line(terminal)["msg"] == "x"


def test_a_stream_that_is_gone_stops_nobody() -> None:
    stream = io.StringIO()
    log = logger(stream)
    stream.close()
    log.info("x")


def test_a_log_file_that_was_closed_half_way_is_opened_again(tmp_path: Path) -> None:
    file = LogFile("x.log", str(tmp_path))
    publisher = LogPublisher(logs.observer(file, "INFO", "json"))
    file._file.close()
    Logger(namespace="test", observer=publisher).info("back again")
    file.close()
    assert json.loads((tmp_path / "x.log").read_text())["msg"] == "back again"


def test_connections_that_come_and_go_are_not_news() -> None:
    stream = io.StringIO()
    publisher = LogPublisher(logs.observer(stream, "INFO", "json"))
    Logger(namespace="twisted.web.client._HTTP11ClientFactory", observer=publisher).info("Starting factory")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_shows_no_value_of_a_variable(form: str) -> None:
    def login(password: str) -> None:
        raise ValueError(len(password))

    stream = io.StringIO()
    try:
        login("hunter" + "2")
    except ValueError:
        logger(stream, form=form).failure("it broke", Failure(captureVars=True))
    assert "in login" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
