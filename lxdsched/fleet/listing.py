"""A listing of instances, row by row.

One odd instance makes its row doubtful, never its listing useless. And a listing may be long, by right or by malice:
it is read in steps, so that whoever reads it can do something else in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from lxdsched.fleet.payloads import MOST_TEXT, Envelope, Name, PayloadError, Row, decoded
from lxdsched.fleet.work import Work

MOST_COMMAS = 1_000_000
"""Commas that a listing may have: a row of LXD's has about a hundred, a row of nothing one, and each costs memory."""
MOST_ROWS = 100_000
"""Rows that a listing may have."""
MOST_ROW = 1024**2
"""Bytes that a row may have. The longest that there are have somebody's cloud-init in them."""
MOST_ODD_ROWS = 1000
"""Rows that may be odd before the listing as a whole is not believed."""
_AT_ONCE = 256 * 1024
"""Bytes of a listing that take no time worth sharing."""


@dataclass(frozen=True, slots=True)
class OddRow:
    """What can be said of a row that does not decode. `doubt` is what is wrong with it; None is what it leaves out."""

    name: str
    doubt: str
    project: str = "default"
    location: str | None = None
    status: str | None = None

    @property
    def label(self) -> str:
        """A name for the instance, as far as it has one."""
        return f"{self.project}/{self.name}"


class _Fields(msgspec.Struct):
    """The fields by which a row is known, each of which may be anything."""

    name: msgspec.Raw = msgspec.Raw(b"null")
    project: msgspec.Raw = msgspec.Raw(b"null")
    location: msgspec.Raw = msgspec.Raw(b"null")
    status: msgspec.Raw = msgspec.Raw(b"null")


_rows = msgspec.json.Decoder(list[Row])
_row = msgspec.json.Decoder(Row)
_raw_rows: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_fields = msgspec.json.Decoder(_Fields)
_name: msgspec.json.Decoder[str] = msgspec.json.Decoder(Name)


def read_listing(envelope: Envelope) -> Work[tuple[list[Row], list[OddRow]]]:
    """Decode a listing into its rows, and into what can be said of those that do not decode.

    PayloadError when it is no listing at all, or more of it is odd than can be an accident.
    """
    listing = envelope.metadata
    if len(listing) <= _AT_ONCE:
        try:
            return decoded(_rows, listing), []
        except PayloadError:
            pass
    elif bytes(listing).count(b",") > MOST_COMMAS:
        raise PayloadError("it lists more than any host can have")
    yield
    raws = decoded(_raw_rows, listing)
    if len(raws) > MOST_ROWS:
        raise PayloadError(f"it lists {len(raws)} instances, more than any host can have")
    rows: list[Row] = []
    odd: list[OddRow] = []
    for number, raw in enumerate(raws):
        yield
        try:
            if len(raw) > MOST_ROW:
                raise PayloadError(f"its row is longer than {MOST_ROW // 1024} KiB")
            rows.append(decoded(_row, raw))
        except PayloadError as error:
            odd.append(_odd(raw, number, str(error)))
            if len(odd) > MOST_ODD_ROWS:
                raise PayloadError(f"more than {MOST_ODD_ROWS} of its rows cannot be read: {error}") from None
    return rows, odd


def _odd(raw: msgspec.Raw, number: int, doubt: str) -> OddRow:
    try:
        fields = decoded(_fields, raw)
    except PayloadError:
        fields = _Fields()
    return OddRow(
        _said(fields.name) or f"row {number}",
        doubt[:MOST_TEXT],
        _said(fields.project) or "default",
        _said(fields.location),
        _said(fields.status),
    )


def _said(raw: msgspec.Raw) -> str | None:
    try:
        return decoded(_name, raw)
    except PayloadError:
        return None
