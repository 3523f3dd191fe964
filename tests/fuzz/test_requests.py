"""`POST /schedule` from somebody who means no good."""

from __future__ import annotations

from time import process_time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.web.requests import MOST_IGNORED, MOST_NAME, MOST_TARGETS
from tests.fuzz import oracles
from tests.fuzz.grown import ODD, grown, write

MOST_BODY = 64 * 1024

COMMON = {
    "architecture": "amd64",
    "dry_run": True,
    "image_alias": "ubuntu/24.04",
    "instance_name": "runner-1",
    "instance_type": "virtual-machine",
    "request_id": "7",
    "resource_type": "small",
    "strategy": "balanced",
    "target_hosts": ["https://192.0.2.1:8443", "node-2"],
}
DOCUMENTED = {"instance_requirements": {"cpu": 2, "memory": 2048}} | COMMON
FLAT = {"cpu": 2, "memory": "2GiB"} | COMMON


@given(st.binary(max_size=1000))
def test_any_bytes(body: bytes) -> None:
    oracles.request(body)


@given(grown(DOCUMENTED, FLAT))
def test_any_value_in_any_place(body: bytes) -> None:
    oracles.request(body)


@pytest.mark.parametrize("root", [DOCUMENTED, FLAT], ids=["documented", "flat"])
def test_every_odd_value_in_every_place(root: dict[str, object]) -> None:
    with oracles.cpu_seconds():
        for odd in ODD:
            for key in root:
                oracles.request(write(root | {key: odd}).encode())
            for key in ("cpu", "memory"):
                oracles.request(write(root | {"instance_requirements": {"cpu": 1, "memory": 1, key: odd}}).encode())
            oracles.request(write(root | {"target_hosts": ["a", odd]}).encode())


@pytest.mark.parametrize(
    "unit", [b"[", b'{"a":', b'{"cpu":', b'"\\u0000', b"1", b"-", b" ", b"\\", b"\xff", b"\xf0\x9f"]
)
def test_a_whole_body_of_one_thing_is_refused(unit: bytes) -> None:
    with oracles.cpu_seconds():
        assert oracles.request((unit * MOST_BODY)[:MOST_BODY]) is None


def test_no_number_costs_many_times_as_much_as_another() -> None:
    def cost(number: bytes) -> float:
        body = b'{"cpu": 1, "memory": 1, "x": [' + b",".join([number] * 10_000) + b"]}"
        began = process_time()
        assert oracles.request(body) is not None
        return process_time() - began

    assert min(cost(b"1e308") for _ in range(5)) < 10 * min(cost(b"1.5e7") for _ in range(5)) + 0.01


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1e-999", "1e308", "2.5"])
def test_an_odd_number_is_refused_where_it_counts_and_ignored_where_it_does_not(number: str) -> None:
    asked = oracles.request(f'{{"cpu": 1, "memory": 1, "x": {number}}}'.encode())
    assert asked is not None
    assert asked.ignored == ("x",)
    for body in (f'{{"cpu": {number}, "memory": 1}}', f'{{"cpu": 1, "memory": {number}}}'):
        assert oracles.request(body.encode()) is None


@pytest.mark.parametrize("name", ["{}", "\n{}", "x" * 6000 + "{}"])
def test_of_thousands_of_ignored_fields_the_answer_names_a_few(name: str) -> None:
    strangers = {name.format(number): 1 for number in range(MOST_BODY // (len(name) + 7))}
    for body in (FLAT | strangers, {"instance_requirements": {"cpu": 1, "memory": 1} | strangers}):
        with oracles.cpu_seconds():
            asked = oracles.request(msgspec.json.encode(body))
        assert asked is not None
        shown = asked.ignored[:MOST_IGNORED]
        assert all(len(each) <= MOST_NAME + 3 for each in shown)
        more = len(strangers) - len(shown)
        assert asked.ignored[len(shown) :] == ((f"... and {more} more",) if more else ())


def test_no_more_hosts_may_be_named_than_the_answer_can_explain() -> None:
    for number, good in ((MOST_TARGETS, True), (MOST_TARGETS + 1, False)):
        body = msgspec.json.encode({"cpu": 1, "memory": 1, "target_hosts": [str(each) for each in range(number)]})
        assert len(body) < MOST_BODY
        assert (oracles.request(body) is not None) is good
