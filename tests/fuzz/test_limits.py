"""LXD's grammar of limits, against a reader that was written a second time, letter by letter."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.limits import MOST_MEMORY
from tests.fuzz import oracles

MEMORY = 16 << 30
POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


class Unreadable(Exception):  # noqa: N818
    pass


def number(text: str, digits: int) -> int:
    """Read a number of at most so many of the ten digits."""
    if not text or len(text) > digits or any(char not in "0123456789" for char in text):
        raise Unreadable
    return sum("0123456789".index(char) * 10**place for place, char in enumerate(reversed(text)))


def size(text: str) -> int:
    digits = ""
    while text and text[0] in "0123456789":
        digits, text = digits + text[0], text[1:]
    if text in {"", "B"}:
        return number(digits, 19)
    binary = text.endswith("iB")
    letter = text.removesuffix("iB" if binary else "B")
    if not text.endswith("B") or len(letter) != 1 or letter not in POWERS or letter == ("k" if binary else "K"):
        raise Unreadable
    value = number(digits, 19)
    for _ in range(POWERS[letter]):
        value *= 1024 if binary else 1000
    return value


def memory(text: str) -> int:
    found = ceil(Fraction(MEMORY * number(text[:-1], 9), 100)) if text.endswith("%") else size(text)
    if not found:
        raise Unreadable
    return min(found, MOST_MEMORY)


def cpu(text: str) -> int:
    if "=" in text:
        parts = [part.split("=", 1) for part in text.split(",")]
        names = [part[0] for part in parts]
        if len(set(names)) < len(names) or set(names) - {"sockets", "cores", "threads"}:
            raise Unreadable
        cores = 1
        for part in parts:
            cores *= number(part[1] if len(part) > 1 else "", 9)
    elif "," in text or "-" in text:
        spans = [part.split("-") for part in text.split(",")]
        if any(len(span) > 2 for span in spans):
            raise Unreadable
        ends = [(number(span[0], 9), number(span[-1], 9)) for span in spans]
        cores = len([each for each in oracles.CPUS if any(first <= each <= last for first, last in ends)])
    else:
        cores = number(text, 9)
    return 1000 * (cores if 0 < cores < len(oracles.CPUS) else len(oracles.CPUS))


def allowance(text: str) -> int | None:
    if text.endswith("%"):
        number(text[:-1].removeprefix("-"), 9)
        return None
    quota, slash, period = text.partition("/")
    if not slash:
        raise Unreadable
    quota_ms, period_ms = number(quota.removesuffix("ms"), 9), number(period.removesuffix("ms"), 9)
    if not quota_ms or not period_ms:
        raise Unreadable
    return ceil(Fraction(1000 * quota_ms, period_ms))


def reference(text: str) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for name, read in (("size", size), ("memory", memory), ("cpu", cpu), ("allowance", allowance)):
        try:
            found[name] = read(text)
        except Unreadable:
            continue
    return found


numbers = st.integers(0, 40).map(str) | st.integers(0, 10**20).map(str) | st.sampled_from(["", "007", "0" * 19, "٣"])
pieces = numbers | st.sampled_from(
    [*"kKMGTPEBib%,-/= \n+.\0", "iB", "ms", "sockets=", "cores=", "threads=", "0-", "-3", "\ud800"]
)
pins = st.lists(st.tuples(numbers, st.sampled_from(["", "-", ","]), numbers).map("".join), max_size=6).map(",".join)


@given(st.lists(pieces, max_size=8).map("".join) | pins | st.text())
def test_both_readers_agree_on_any_text(text: str) -> None:
    assert oracles.limits(text) == reference(text)


@given(st.lists(st.tuples(pieces, st.integers(1, 65536)), min_size=1, max_size=4))
def test_a_text_of_any_length_costs_little(parts: list[tuple[str, int]]) -> None:
    text = "".join(piece * times for piece, times in parts)[:65536]
    with oracles.cpu_seconds():
        oracles.limits(text)


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0-999999999", 16),
        ("0-999999999999", None),
        ("5-999999999,0-1", 13),
        ("999999999-0", 16),
        ("1," * 4095 + "1", 1),
        ("0-999999999," * 682 + "0", 16),
        ("1," * 32768 + "1", None),
        ("-" * 65536, None),
        ("sockets=999999999,cores=999999999,threads=999999999", 16),
    ],
    ids=lambda value: str(value)[:20],
)
def test_sets_of_cpus_beyond_reason(text: str, cores: int | None) -> None:
    with oracles.cpu_seconds():
        assert oracles.limits(text).get("cpu") == (cores and cores * 1000)
