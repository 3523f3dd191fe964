"""Shows what others have written: on one line, and never more of it than a person wants to see."""

from __future__ import annotations

from reprlib import Repr

MOST_QUOTED = 80
"""Characters of somebody's text that a sentence of ours shows."""

_brief = Repr()
_brief.maxlevel = 2
_brief.maxother = MOST_QUOTED


def quoted(value: object) -> str:
    """Quote any value as Python writes it, cut where it is long. It costs no more than what is shown."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= MOST_QUOTED else f"{value[:MOST_QUOTED]!r}..."
    try:
        return cut(_brief.repr(value), MOST_QUOTED)
    except Exception:  # a number of thousands of digits, or what cannot show itself
        return f"a value of type {type(value).__name__}"


def cut(text: str, most: int) -> str:
    """Leave out what is beyond so many characters, and show that something is."""
    return text if len(text) <= most else f"{text[:most]}..."


def one_line(text: str) -> str:
    """Show what a terminal would act on, so that nobody's text forges a line or moves the cursor."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def in_json(encoded: bytes) -> bytes:
    """Escape in JSON, which is one line, what `one_line` escapes in texts; the JSON means the same then.

    JSON lets it stand as it is, though some programs end a line there, or take the whole line for no text.
    """
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    text = encoded.decode()
    return encoded if text.isprintable() else text.translate(_Escapes()).encode()


class _Escapes(dict[int, str]):
    """What each character of one text becomes: looked up once, however often it is there."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        units = "" if char.isprintable() else char.encode("utf-16-be").hex()
        self[code] = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) or char
        return self[code]
