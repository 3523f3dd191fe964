"""Words: what somebody may have meant who wrote one that does not exist, and how one and more of a thing are called."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

_LONGEST = 64
"""Characters beyond which comparing takes longer than the hint is worth."""


def meant(word: str, known: Sequence[str]) -> str:
    """Return the end of a sentence about a wrong word: a guess, or nothing."""
    close = get_close_matches(word, known, n=1) if len(word) <= _LONGEST else []
    return f", did you mean {close[0]}?" if close else ""


def counted(number: int, thing: str) -> str:
    """Say how many things there are, whose name takes an s where there is not one."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
