"""Reads files that people write: regular ones of a bounded size, without waiting for anybody."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_BYTES = 1024**2
"""Bytes that a file may have."""
MOST_PARTS = 100
"""Dots that one line of TOML may have outside of texts: reading a key takes the square of the number of its parts."""

_TEXTS = re.compile(r'"(?:[^"\\\n]|\\.)*+"|' r"'[^'\n]*+'")


class Unreadable(Exception):  # noqa: N818
    """A file cannot be read. The message is why, as the second half of a sentence that begins with its name."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file, and with which mode and owner it was opened."""

    data: bytes
    mode: int
    owner: int


def read_small(path: str | Path) -> Content:
    """Read a whole file. Unreadable when there is none, or it is no regular file, or larger than a file may be."""
    try:
        # Without O_NONBLOCK, a fifo that nobody writes to would be waited for here.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                raise Unreadable("is a directory")
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable("is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MOST_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError for a path that cannot be one
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from None
    if len(data) > MOST_BYTES:
        raise Unreadable(f"is larger than {MOST_BYTES // 1024} KiB")
    return Content(data, found.st_mode, found.st_uid)


def read_toml(content: bytes) -> dict[str, Any]:
    """Read the content of a TOML file. ValueError or RecursionError when it is none, not UTF-8, or unfit to read."""
    text = content.decode("utf-8").replace("\r\n", "\n")
    for number, line in enumerate(_TEXTS.sub("", text).split("\n"), 1):
        if line.partition("#")[0].count(".") > MOST_PARTS:
            raise ValueError(f"a key of more than {MOST_PARTS} parts (at line {number})")
    return tomllib.loads(text)
