"""JSON grown from something valid: any part of it replaced, left out, put in twice, or joined by strangers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

DEEP = 60_000
LONG = 10_000


class Raw(str):
    """JSON text that stands for itself."""

    __slots__ = ()


ODD = [
    Raw(text)
    for text in (
        "null",
        "true",
        "false",
        "0",
        "-0.0",
        "-1",
        "2.5",
        "1e308",
        "1e400",
        "-1e400",
        "1e-400",
        "NaN",
        "Infinity",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "9" * 300,
        "9" * LONG,
        "0." + "1" * LONG,
        '""',
        '" "',
        '"\\u0000"',
        '"a\\nb\\u001b[2J"',
        '"\\ud800"',
        '"\\udfff\\ud800"',
        '"\\u202e"',
        '"' + "a" * 256 + '"',
        '"' + "\\u0001" * 257 + '"',
        '"' + "a" * LONG + '"',
        '"2GiB"',
        '"' + "9" * 5000 + 'GiB"',
        "[]",
        "{}",
        '{"cpu":1,"cpu":[]}',
        "[" * 200 + "]" * 200,
        "[" * DEEP,
        '{"a":' * 10_000,
        "[" + "1," * LONG + "1]",
    )
]

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
odd = st.sampled_from(ODD) | anything


def write(value: Any) -> str:
    """Write a value; pairs in a tuple are an object, whose keys need not differ."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, tuple):
        return "{" + ",".join(f"{json.dumps(key)}:{write(each)}" for key, each in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return json.dumps(value)


def _changed(draw: Callable[[st.SearchStrategy[Any]], Any], value: Any) -> Any:
    """Change something somewhere in a value."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        way = draw(st.sampled_from(["within", "within", "without", "twice", "stranger"]))
        if way == "without":
            return {each: value[each] for each in value if each != key}
        if way == "twice":
            return (*value.items(), (key, draw(odd)))
        if way == "stranger":
            return value | {draw(st.text()): draw(odd)}
        return value | {key: _changed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _changed(draw, value[place]), *value[place + 1 :]]
    return draw(odd)


@st.composite
def grown(draw: Callable[[st.SearchStrategy[Any]], Any], *roots: Any) -> bytes:
    """Grow JSON from one of these values by one to three changes."""
    value = draw(st.sampled_from(roots))
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(draw, value)
    return write(value).encode("utf-8", "surrogatepass")
