"""Times as people write and read them, in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SPAN = re.compile(r"([0-9]{1,6})([hd])\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")


def moment(time: datetime) -> str:
    """Say a time, to the minute."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def read_end(text: str, now: datetime) -> datetime | None:
    """Read when something ends: `90d` or `12h` from now, a date (its first moment), a time with its zone, or `never`.

    ValueError, as the second half of a sentence, when it is none of these or over already.
    """
    if text == "never":
        return None
    end = _end(text, now)
    if end <= now:
        raise ValueError(f"is {text}, which is over already")
    return end


def _end(text: str, now: datetime) -> datetime:
    try:
        if span := _SPAN.match(text):
            return now + timedelta(**{"hours" if span[2] == "h" else "days": int(span[1])})
        time = datetime.fromisoformat(text)
        return (time.replace(tzinfo=UTC) if _DATE.match(text) else _aware(time)).astimezone(UTC).replace(microsecond=0)
    except OverflowError:
        raise ValueError(f"is {text}, which is beyond all times") from None
    except ValueError:
        raise ValueError(f"is {text!r}, not like 90d, 12h, 2027-01-31, 2027-01-31T12:00:00Z or never") from None


def _aware(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError("has no zone")
    return time
