"""What is shown of other people's text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from lxdsched.cli import main
from lxdsched.quoting import MOST_QUOTED, cut, in_json, one_line, quoted
from lxdsched.sandbox.certs import make_certificate


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def deep() -> list[object]:
    found: list[object] = []
    for _ in range(100_000):
        found = [found]
    return found


@pytest.mark.parametrize("value", ["a", "it's\n", "", b"\xff", 7, 2.5, None, True, [1, "a"], {"a": 1}])
def test_what_is_short_is_quoted_as_python_writes_it(value: object) -> None:
    assert quoted(value) == repr(value)


def test_a_long_text_is_cut() -> None:
    assert quoted("x" * 81) == repr("x" * 80) + "..."


@pytest.mark.parametrize("value", [[["x" * 100] * 1000], {"k" * 100: [1] * 1000}, deep(), 10**4000], ids=range(4))
def test_whatever_is_long_or_deep_is_cut(value: object) -> None:
    assert len(quoted(value)) <= MOST_QUOTED + 3


@pytest.mark.parametrize("value", [10**5000, Mute(), [10**5000]], ids=lambda value: type(value).__name__)
def test_what_cannot_show_itself_is_named_by_its_type(value: object) -> None:
    assert type(value).__name__ in quoted(value)


def test_a_cut_shows_that_something_is_left_out() -> None:
    assert (cut("abc", 3), cut("abcd", 3)) == ("abc", "abc...")


def test_on_one_line_nothing_moves_the_cursor() -> None:
    assert one_line("a\n\x1b[2J\ud800é") == "a\\n\\x1b[2J\\ud800é"


def test_json_means_the_same_when_nothing_in_it_moves_the_cursor() -> None:
    said = {"é\x7f": "a\x85b\u2028c\u202ed\x9b31m\U000e0041\uffffé日\U0001f600\\"}
    encoded = in_json(msgspec.json.encode(said))
    assert encoded.decode().isprintable()
    assert "é日\U0001f600" in encoded.decode()
    assert msgspec.json.decode(encoded) == json.loads(encoded) == said


def test_json_that_needs_nothing_is_not_touched() -> None:
    encoded = b'{"a\\u0007":[1]}'
    assert in_json(encoded) is encoded


def test_no_name_of_a_file_that_check_warns_of_moves_the_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    then = datetime(2020, 1, 1, tzinfo=UTC)
    pair = make_certificate("client", now=then, not_after=datetime(2021, 1, 1, tzinfo=UTC))
    certificate, key = pair.write(tmp_path, "a\x9b31m")
    key.chmod(0o644)
    host = {"host": "https://192.0.2.1:8443", "client_cert": str(certificate), "client_key": str(key)}
    monkeypatch.setenv("LXD_MULTI_SCHEDULER_ALLOW_EXPOSED_KEYS", "true")
    for hosts, status, named in (([host], 0, ["crt", "key"]), ([host, host], 1, ["key"])):
        monkeypatch.setenv("LXD_MULTI_HOSTS", json.dumps(hosts))
        assert main(["check"]) == status
        said = capsys.readouterr().err
        assert all(line.isprintable() for line in said.splitlines())
        assert all(f"a\\x9b31m.{each}" in said for each in named), said
