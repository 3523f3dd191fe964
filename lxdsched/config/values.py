"""Readers of single values: from text (options, environment) and from what TOML or JSON hold.

A reader returns the value in the unit that the inside works with, or raises Fault with what is wrong with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address

from lxdsched.limits import LimitError, parse_size
from lxdsched.model import MILLICORES
from lxdsched.quoting import quoted

Reader = Callable[[object], object]


class Fault(ValueError):  # noqa: N818
    """What is wrong with a value, as the second half of a sentence that begins with the setting's name."""


_WHOLE = re.compile(r"-?[0-9]{1,18}\Z")
_MOST_BITS = 64
MOST_SECONDS = 86_400
"""Seconds of the longest time span that makes sense in a setting: a day."""


def integer(least: int, most: int) -> Reader:
    """Read a whole number in a range."""

    def read(value: object) -> int:
        if isinstance(value, str) and _WHOLE.match(value.strip()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise Fault(f"is {quoted(value)}, not a whole number")
        if not least <= value <= most:
            raise Fault(f"is not between {least} and {most}")
        return value

    return read


_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def boolean(value: object) -> bool:
    """Read yes or no: a boolean, or a text in any case."""
    if isinstance(value, str):
        value = _TRUTHS.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise Fault(f"is {value!r}, neither true nor false")
    return value


def seconds(least: float) -> Reader:
    """Read a time span in seconds, fractions allowed."""

    def read(value: object) -> float:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise Fault(f"is {quoted(value)}, not a number of seconds") from None
        if not isinstance(value, int | float) or isinstance(value, bool) or value != value:  # noqa: PLR0124  # NaN
            raise Fault(f"is {quoted(value)}, not a number of seconds")
        if not least <= value <= MOST_SECONDS:
            raise Fault(f"is not between {least:g} and {MOST_SECONDS} seconds")
        return float(value)

    return read


def size_from(least: int) -> Reader:
    """Read an amount of memory that is not too small, in bytes."""

    def read(value: object) -> int:
        found = size(value)
        if found < least:
            raise Fault(f"is less than {least} bytes")
        return found

    return read


def size(value: object) -> int:
    """Read an amount of memory: bytes, or a text with LXD's suffixes."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > _MOST_BITS:
            raise Fault("is beyond all numbers")
        value = str(value)
    if not isinstance(value, str):
        raise Fault(f"is {quoted(value)}, not a size such as 2GiB")
    try:
        return parse_size(value.strip())
    except LimitError as error:
        raise Fault(str(error)) from None


def millicores(value: object) -> int:
    """Read a number of cores, decimals allowed, into millicores."""
    try:
        cores = Decimal(str(value)) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except InvalidOperation:
        cores = None
    if cores is None or not cores.is_finite() or not 0 <= cores <= 65536:  # noqa: PLR2004
        raise Fault(f"is {quoted(value)}, not a number of cores")
    return math.ceil(cores * MILLICORES)


def text(value: object) -> str:
    """Read a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise Fault(f"is {quoted(value)}, not a text")
    return value


def key_prefix(value: object) -> str:
    """Read what keys in Redis begin with: braces decide where a cluster keeps a key, and are ours to set."""
    if any(character in "{}" or not character.isprintable() for character in text(value)):
        raise Fault(f"is {quoted(value)}: braces and control characters are not allowed")
    return text(value)


def interface(value: object) -> str:
    """Read the IP address of a network interface."""
    try:
        return str(ip_address(text(value).strip().strip("[]")))
    except ValueError:
        raise Fault(f"is {quoted(value)}, not an IP address such as 127.0.0.1 or ::") from None


def choice(*names: str) -> Reader:
    """Read one of these names, in any case."""

    def read(value: object) -> str:
        for name in names:
            if isinstance(value, str) and value.strip().lower() == name.lower():
                return name
        raise Fault(f"is {quoted(value)}, not one of {', '.join(names)}")

    return read


def texts(value: object) -> tuple[str, ...]:
    """Read a list of texts: an array, or a text with commas."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list) or not all(isinstance(part, str) and part for part in value):
        raise Fault(f"is {quoted(value)}, not a list of texts")
    return tuple(value)


def anything(value: object) -> object:
    """Take the value as it is: something else reads it."""
    return value
