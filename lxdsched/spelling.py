"""What somebody may have meant who wrote a word that does not exist."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

_LONGEST = 64
"""Characters beyond which comparing takes longer than the hint is worth."""


def meant(word: str, known: Sequence[str]) -> str:
    """Return the end of a sentence about a wrong word: a guess, or nothing."""
    close = get_close_matches(word, known, n=1) if len(word) <= _LONGEST else []
    return f", did you mean {close[0]}?" if close else ""
