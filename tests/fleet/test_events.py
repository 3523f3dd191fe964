"""A stream and what a host may do with it, byte for byte, on a clock that the test moves."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from wsproto import events as frames

from lxdsched.fleet.events import (
    GRACE,
    MOST_FRAMES,
    MOST_MESSAGE,
    UNCLEAR,
    Event,
    read_event,
)
from tests.fleet.streams import CREATED, EVENT, Peer


@pytest.fixture
def host() -> Peer:
    """A host whose stream is open."""
    host = Peer()
    host.say(frames.AcceptConnection(), frames.Ping(b"keepalive"))
    assert host.stream.opened.called
    assert host.asked() == [frames.Pong(b"keepalive")]
    return host


def test_an_event_is_told_when_it_comes(host: Peer) -> None:
    host.say(frames.TextMessage(CREATED))
    assert host.told == [EVENT]


def test_events_are_told_in_their_order_however_they_are_cut(host: Peer) -> None:
    second = CREATED.replace("created", "deleted")
    for byte in host.packed(frames.TextMessage(CREATED), frames.TextMessage(second)):
        host.raw(bytes([byte]))
    assert host.told == [EVENT, Event("instance-deleted", EVENT.source, "none")]


def test_a_message_may_come_in_pieces_with_pings_between(host: Peer) -> None:
    first, second, third = CREATED[:40], CREATED[40:50], CREATED[50:]
    host.say(frames.TextMessage(first, message_finished=False), frames.Ping(b"x"))
    host.say(frames.TextMessage(second, message_finished=False), frames.TextMessage("", message_finished=False))
    assert host.told == []
    host.say(frames.TextMessage(third))
    assert host.told == [EVENT]


@pytest.mark.parametrize(
    "message",
    [
        "", "hello", "null", "[]", '"x"', "{", "{}", '{"metadata":null}', '{"metadata":{}}',
        '{"metadata":{"action":"","source":"x"}}', '{"metadata":{"action":7}}',
        '{"metadata":{"action":"a","source":null}}',
        '{"metadata":{"action":"instance-created"},"location":1}', '{"metadata":{"action":"\\ud800"}}',
        '{"x":' + "[" * 50_000, '{"metadata":{"message":"a line of its log"},"type":"logging"}',
    ],
)  # fmt: skip
def test_what_is_not_understood_may_have_meant_something(host: Peer, message: str) -> None:
    host.say(frames.TextMessage(message))
    assert host.told == [UNCLEAR]


def test_a_binary_message_may_have_meant_something(host: Peer) -> None:
    host.say(frames.BytesMessage(b"\x00\xff", message_finished=False), frames.BytesMessage(CREATED.encode()))
    assert host.told == [UNCLEAR]


def test_what_is_not_even_text_is_not_understood() -> None:
    assert read_event(b'{"metadata":{"action":"\xff"}}') == UNCLEAR


def test_what_a_host_leaves_out_is_empty() -> None:
    assert read_event(b'{"metadata":{"action":"config-updated"}}') == Event("config-updated", "", "")


@pytest.mark.parametrize("size", [MOST_MESSAGE, MOST_MESSAGE + 1])
@pytest.mark.parametrize("kind", [frames.TextMessage, frames.BytesMessage])
@pytest.mark.parametrize("pieces", [1, 4])
def test_a_message_has_a_longest_length_whole_or_in_pieces(host: Peer, size: int, kind: type, pieces: int) -> None:
    text = "é" * (size // 2) + "x" * (size % 2) if kind is frames.TextMessage else b"x" * size
    step = len(text) // pieces
    for number in range(pieces):
        last = number == pieces - 1
        host.say(kind(text[number * step : None if last else (number + 1) * step], message_finished=last))
    too_long = "a message of its event stream is longer than 1024 KiB"
    assert host.told == ([UNCLEAR] if size == MOST_MESSAGE else [too_long])
    assert host.dropped is (size > MOST_MESSAGE)


def test_every_message_may_have_the_longest_length(host: Peer) -> None:
    host.say(*[frames.BytesMessage(b"x" * MOST_MESSAGE)] * 3)
    assert host.told == [UNCLEAR] * 3


def test_a_message_without_end_is_cut_off_before_it_has_come(host: Peer) -> None:
    host.raw(b"\x81\x7f" + (2**40).to_bytes(8, "big"))
    for _ in range(MOST_MESSAGE // 65536 + 1):
        assert host.told == []
        host.raw(b"x" * 65536)
    assert len(host.told) == 1
    assert host.dropped


@pytest.mark.parametrize(
    "frame",
    [
        frames.TextMessage(CREATED),
        frames.TextMessage("", message_finished=False),
        frames.BytesMessage(b"", message_finished=False),
        frames.Ping(),
        frames.Pong(),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_flood_is_cut_off_whatever_it_is_made_of(host: Peer, frame: frames.Event) -> None:
    host.clock.advance(1)
    host.say(*[frame] * MOST_FRAMES)
    assert not host.dropped
    host.say(*[frame] * 3)
    assert host.told[-1] == "its event stream is a flood: more than 5000 messages within a second"
    assert host.dropped


def test_many_messages_are_no_flood_when_they_take_their_time(host: Peer) -> None:
    for _ in range(4):
        host.clock.advance(1)
        host.say(*[frames.TextMessage(CREATED)] * MOST_FRAMES)
    assert len(host.told) == 4 * MOST_FRAMES


def test_a_clock_that_is_set_back_makes_no_flood(host: Peer) -> None:
    host.clock.rightNow -= 3600
    for _ in range(2):
        host.clock.advance(1)
        host.say(*[frames.TextMessage(CREATED)] * MOST_FRAMES)
    assert len(host.told) == 2 * MOST_FRAMES


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x85abcd" + b"12345",  # masked
        b"\xc1\x01x",  # a reserved bit
        b"\x83\x01x",  # an unknown kind
        b"\x80\x01x",  # the rest of nothing
        b"\x01\x01x\x81\x01y",  # a beginning where the rest was to come
        b"\x81\x01\xff",  # not UTF-8
        b"\x89\x7e\x00\xff",  # a ping that is too long
        b"\x09\x01x",  # a ping in pieces
        b"\x88\x01x",  # half a code
        b"\x88\x02\x00\x01",  # a code that there is not
        b"\x81\x7f" + b"\xff" * 8,  # a length that there is not
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)  # fmt: skip
def test_what_breaks_the_protocol_ends_the_stream(host: Peer, data: bytes) -> None:
    host.raw(data)
    (reason,) = host.told
    assert str(reason).startswith("its event stream breaks the websocket protocol: ")
    assert host.dropped


def test_a_host_may_close_its_stream_and_say_why(host: Peer) -> None:
    later = host.packed(frames.TextMessage(CREATED))
    host.raw(host.packed(frames.CloseConnection(1001, "x" * 100)) + later)
    assert host.told == ["it closed its event stream: " + "x" * 100]
    assert host.dropped


@pytest.mark.parametrize(
    ("error", "words"),
    [(ConnectionDone(), "it has closed the connection"), (ConnectionLost(), "the connection broke off")],
)
def test_a_connection_that_ends_is_told(host: Peer, error: Exception, words: str) -> None:
    host.hang_up(error)
    (reason,) = host.told
    assert str(reason).startswith("its event stream ended: ")
    assert words in str(reason)
    assert host.dropped


def test_a_silent_host_is_asked_for_a_sign_of_life_and_then_given_up(host: Peer) -> None:
    for _ in range(99):
        host.clock.advance(0.1)
    assert host.asked() == [frames.Ping()]
    assert host.told == []
    host.clock.pump([0.2, GRACE])
    assert host.told == ["its event stream is silent: nothing came for 10 s"]
    assert host.dropped


def test_what_came_while_we_were_away_is_read_before_the_host_is_called_silent(host: Peer) -> None:
    host.clock.advance(60)
    host.say(frames.Pong())
    host.clock.pump([GRACE, 9.9])
    assert host.told == []
    host.clock.pump([0.2, GRACE])
    assert host.dropped


@pytest.mark.parametrize(
    "sign",
    [frames.TextMessage(CREATED), frames.BytesMessage(b"x"), frames.Ping(b"x"), frames.Pong()],
    ids=lambda frame: type(frame).__name__,
)
def test_every_sign_of_life_counts(host: Peer, sign: frames.Event) -> None:
    for _ in range(10):
        host.clock.pump([9.9])
        host.say(sign)
    assert not host.dropped
    host.clock.pump([9.9, 0.2, GRACE])
    assert host.dropped


def test_a_message_that_never_ends_is_no_sign_of_life(host: Peer) -> None:
    for _ in range(10):
        host.clock.advance(1)
        host.say(frames.TextMessage("x", message_finished=False))
    host.clock.advance(GRACE)
    assert host.told == ["its event stream is silent: nothing came for 10 s"]


def test_a_host_that_pings_is_answered(host: Peer) -> None:
    host.say(frames.Ping(b"are you there"))
    assert host.asked() == [frames.Pong(b"are you there")]


def test_a_host_that_does_not_read_what_it_is_sent_is_given_up(host: Peer) -> None:
    cast(IPushProducer, host.transport.producer).pauseProducing()
    assert host.told == ["it does not read what its event stream is sent"]
    assert host.dropped


def test_a_stream_that_was_closed_says_nothing_any_more(host: Peer) -> None:
    host.stream.close()
    assert host.dropped
    host.stream.close()
    host.say(frames.TextMessage(CREATED), frames.CloseConnection(1000))
    host.clock.advance(100)
    host.hang_up()
    assert host.told == []


def test_a_stream_may_be_closed_by_who_hears_an_event(host: Peer) -> None:
    host.stream._heard = lambda _: host.stream.close()
    host.say(frames.TextMessage(CREATED), *[frames.TextMessage(CREATED)] * MOST_FRAMES)
    host.hang_up()
    assert host.told == []
    assert host.dropped


def test_a_stream_is_lost_once(host: Peer) -> None:
    host.say(frames.CloseConnection(1000))
    host.raw(b"\xff\xff")
    host.hang_up()
    assert len(host.told) == 1


@given(st.booleans(), st.lists(st.binary(max_size=200), max_size=5))
def test_no_bytes_break_anything(agreed: bool, said: list[bytes]) -> None:
    host = Peer()
    host.stream.opened.addErrback(lambda _: None)
    if agreed:
        host.say(frames.AcceptConnection(), frames.Ping())
    for data in said:
        host.raw(data)
    host.hang_up()
    assert host.dropped
    assert len([each for each in host.told if isinstance(each, str)]) == agreed
