"""Reads the files that the configuration names, and says what is wrong with them without showing a secret."""

from __future__ import annotations

import re
from pathlib import Path

from lxdsched.config.values import Fault
from lxdsched.quoting import cut

MOST_FILE = 1024 * 1024
"""Bytes of the largest file that the configuration may name."""
MOST_PATH = 300
"""Characters of a path that a fault shows."""
MOST_PARTS = 100
"""Dots that one line of TOML may have outside of texts: reading a key takes the square of the number of its parts."""

_TEXTS = re.compile(r'"(?:[^"\\\n]|\\.)*+"|' r"'[^'\n]*+'")


def read_file(path: str, *, secret: bool = False) -> bytes:
    """Read a whole file. Fault when it cannot be read; where the file is a `secret`, only an absolute path is shown."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_FILE + 1)
    except (OSError, ValueError) as error:
        raise Fault(f"{shown(path, secret=secret)}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MOST_FILE:
        raise Fault(f"{shown(path, secret=secret)}: has more than {MOST_FILE} bytes")
    return content


def shown(path: str, *, secret: bool = False) -> str:
    """Show a path, unless it looks like what the file should hold: people do set a key where its path is wanted."""
    if "-----" in path or "\n" in path:
        return "what is set is no path (is it what the file should hold?)"
    if secret and not Path(path).is_absolute():
        return "the file that is named"
    return cut(path, MOST_PATH)


def read_text(path: str) -> str:
    """Read a TOML file as text. Fault when it cannot be read; ValueError when it is not UTF-8, or unfit to parse."""
    text = read_file(path).decode("utf-8").replace("\r\n", "\n")
    for number, line in enumerate(_TEXTS.sub("", text).split("\n"), 1):
        if line.partition("#")[0].count(".") > MOST_PARTS:
            raise ValueError(f"a key of more than {MOST_PARTS} parts (at line {number})")
    return text
