"""A server in the place of Redis that says whatever it likes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.ledger.wire import ErrorReply, LinkError
from tests.fuzz import oracles
from tests.fuzz.said import ASKED, heard

pieces = st.binary(max_size=20) | st.sampled_from(
    [
        b"+OK\r\n",
        b"-ERR \xff\r\n",
        b"-" + b"x" * 70_000 + b"\r\n",
        b":1\r\n",
        b":" + b"9" * 40 + b"\r\n",
        b"$3\r\nabc\r\n",
        b"$-1\r\n",
        b"$99999999999\r\n",
        b"$-7\r\n",
        b"*2\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*1\r\n" * 1000,
        b"+QUEUED\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b">2\r\n+message\r\n+x\r\n",
        b"~1\r\n:1\r\n",
        b",nan\r\n",
        b"#t\r\n",
        b"_\r\n",
        b"(9999999999999999999999\r\n",
        b"\r\n",
        b"\0",
    ]
)


@given(st.lists(pieces, max_size=8))
def test_whatever_it_says_everyone_who_waits_hears_something(chunks: list[bytes]) -> None:
    outcomes = heard(chunks)
    assert len(outcomes) == ASKED
    for each in outcomes:
        if hasattr(each, "check"):
            error = each.check(ErrorReply, LinkError)
            assert error is not None, each
            assert len(each.value.said_of("x") if error is ErrorReply else str(each.value)) <= oracles.MOST_SAID


@pytest.mark.parametrize("unit", [b"*1\r\n", b"*0\r\n", b"+\r\n", b"$", b"-", b"\n", b"*"], ids=repr)
def test_megabytes_of_one_thing_cost_little(unit: bytes) -> None:
    with oracles.cpu_seconds():
        heard([unit * 250_000] * 4)
