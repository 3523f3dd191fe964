"""What somebody else has written into our Redis."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from lxdsched.ledger.mirror import Mirror
from lxdsched.ledger.picture import Picture
from lxdsched.ledger.records import Entry, HostState, Reply
from lxdsched.ledger.strange import MOST_ODD
from tests.conftest import Logged
from tests.fuzz import oracles
from tests.fuzz.grown import ODD, grown, write

RECORD = {
    "expires": 1_120_000,
    "cpu": 2000,
    "memory": 2048,
    "promised": True,
    "created": 1000,
    "host": "a",
    "candidates": ["b", "a", "c"],
    "by": "machine:1",
    "demand": {
        "instance_type": "virtual-machine",
        "architecture": "x86_64",
        "pool": {"resource_type": "small", "image_alias": "ubuntu"},
        "instance_name": "runner-1",
        "request_id": '["ci","7"]',
        "client": "ci",
    },
}
good = msgspec.json.encode(RECORD)

# Whatever a server of Redis can answer.
answers = st.recursive(
    st.none() | st.integers() | st.binary() | st.sampled_from([b"joined", b"a", b"1", b"-1", 10**9, 1 << 63, good]),
    lambda inner: st.lists(inner, max_size=7),
    max_leaves=20,
)
REPLY = [b"epoch", 1, 1000, b"synced", b"", [[b"a", 1, [b"x", good, b""]]]]


@given(st.binary(max_size=1000) | grown(RECORD))
def test_any_record_is_a_reservation_or_named_as_unreadable(content: bytes) -> None:
    oracles.record(content)


def test_every_odd_value_in_every_place_of_a_record() -> None:
    with oracles.cpu_seconds():
        for odd in ODD:
            for key in [*RECORD, "stranger"]:
                oracles.record(write(RECORD | {key: odd}).encode())
            for key in [*RECORD["demand"], "stranger"]:  # type: ignore[misc]
                oracles.record(write(RECORD | {"demand": RECORD["demand"] | {key: odd}}).encode())  # type: ignore[operator]


@given(st.lists(st.just(good) | grown(RECORD) | st.binary(), max_size=4), st.sampled_from([None, "", "p/x", "\0\n"]))
def test_records_of_strangers_do_not_break_the_picture(contents: list[bytes], label: str | None) -> None:
    picture = oracles.mirrored(contents, label)
    assert {"x"} >= {each.id for each in picture.all()} - {str(number) for number in range(4)}


@pytest.mark.parametrize(
    "more",
    [
        {"cpu": -1},
        {"memory": -(1 << 62)},
        {"memory": 1 << 63},
        {"host": "b"},
        {"created": 2_000_000},
        {"expires": 1 << 60},
        {"candidates": ["a" * 1_000_000, "b" * 100_000]},
        {"demand": {"instance_type": "x" * 100_000}},
    ],
    ids=str,
)
def test_a_record_that_claims_what_it_cannot_is_passed_over_and_the_others_count(
    more: dict[str, object], logged: Logged
) -> None:
    picture = oracles.mirrored([good, msgspec.json.encode(RECORD | more)])
    assert [each.id for each in picture.all()] == ["0"]
    (complaint,) = [event for event in logged if "log_level" in event]
    assert len(str(complaint["error"])) < oracles.MOST_SAID


def test_thousands_of_records_of_strangers_are_not_remembered_for_ever() -> None:
    picture = Picture(Clock())
    mirror = Mirror(Clock(), picture, 120)
    for number in range(3 * MOST_ODD):
        entry = Entry(str(number), b"", None)
        mirror.apply(Reply("e", number, 1000, "synced", "", [HostState("a", number, [entry])]))
    assert len(mirror._strangers) <= MOST_ODD


@given(answers | st.tuples(*[st.just(each) | answers for each in REPLY]).map(list))
def test_any_answer_is_one_of_the_script_or_named_as_none(said: Any) -> None:
    oracles.reply(said)


@pytest.mark.parametrize("place", range(len(REPLY)))
def test_numbers_beyond_reason_anywhere_in_an_answer_cost_nothing(place: int) -> None:
    with oracles.cpu_seconds():
        for odd in (10**12, -1, 1 << 63, b"9" * 5000, 1e308, float("nan"), [], None, [[b"a", 1, [b"x", 10**12, b""]]]):
            oracles.reply([*REPLY[:place], odd, *REPLY[place + 1 :]])
    assert oracles.reply([*REPLY[:-1], [[b"a", 1, [b"x", 10**12, b""]]]]) is None
