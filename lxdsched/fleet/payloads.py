"""What LXD's answers mean: the fields that we use, and nothing else of them.

Decoding is strict about the types of those fields. One odd instance makes its row doubtful, never its listing
useless: only where the whole listing does not decode are the rows looked at one by one.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


class PayloadError(ValueError):
    """An answer that is not what LXD's API promises. The message says where."""


class Envelope(msgspec.Struct):
    """What every answer of LXD is wrapped in. `error_code` is an HTTP status; 0 when all is well."""

    type: str = ""
    error_code: int = 0
    error: str = ""
    metadata: msgspec.Raw = msgspec.Raw(b"null")


class Environment(msgspec.Struct):
    """The part of `/1.0` that a trusted client sees."""

    server_name: str
    server_clustered: bool = False
    architectures: list[str] = []
    driver: str = ""
    instance_types: list[str] | None = None
    server: str = ""
    server_version: str = ""


class Server(msgspec.Struct):
    """`GET /1.0`."""

    auth: str
    environment: Environment | None = None
    api_extensions: list[str] = []
    config: dict[str, object] | None = None


class Member(msgspec.Struct):
    """`GET /1.0/cluster/members/NAME`."""

    status: str
    message: str = ""
    config: dict[str, str] = {}


class Thread(msgspec.Struct):
    """A thread of a core; `isolated` ones are not for instances."""

    id: int
    online: bool = True
    isolated: bool = False


class Core(msgspec.Struct):
    """A core of a socket."""

    threads: list[Thread] = []


class Socket(msgspec.Struct):
    """A socket of the machine."""

    cores: list[Core] | None = None


class Cpu(msgspec.Struct):
    """`cpu` of `/1.0/resources`."""

    total: int
    sockets: list[Socket] | None = None


class Memory(msgspec.Struct):
    """`memory` of `/1.0/resources`, in bytes."""

    total: int


class Hardware(msgspec.Struct):
    """`GET /1.0/resources`."""

    cpu: Cpu
    memory: Memory


class Certificate(msgspec.Struct):
    """`GET /1.0/certificates/FINGERPRINT`."""

    restricted: bool = False


class Row(msgspec.Struct):
    """An instance of `GET /1.0/instances?recursion=1`. A row of an offline cluster member has no config."""

    name: str
    status: str
    type: str = ""
    project: str = "default"
    location: str = "none"
    expanded_config: dict[str, str] | None = None


class OddRow(msgspec.Struct):
    """What can be said of a row that does not decode: each field may be anything. `doubt` is what is wrong with it."""

    name: object = None
    project: object = "default"
    location: object = None
    status: object = None
    doubt: str = ""

    @property
    def label(self) -> str:
        """A name for the instance, as far as it has one."""
        return f"{self.project}/{self.name}"[:MOST_TEXT]


_envelope = msgspec.json.Decoder(Envelope)
_rows = msgspec.json.Decoder(list[Row])
_raw_rows: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_row = msgspec.json.Decoder(Row)
_odd_row = msgspec.json.Decoder(OddRow)

MOST_COMMAS = 1_000_000
"""Commas that a listing may have: a row of LXD's has about forty, a row of nothing one, and each costs memory."""
MOST_ODD_ROWS = 1000
"""Rows that may be odd before the listing as a whole is not believed."""
MOST_TEXT = 200
"""Characters of a host's text that are passed on to people."""


def open_envelope(body: bytes) -> Envelope:
    """Decode the wrapping of an answer. PayloadError when it is not LXD's."""
    return _decoded(_envelope, body)


def open_metadata(envelope: Envelope, kind: type[T]) -> T:
    """Decode what an answer says. PayloadError when it is not of this kind."""
    return _decoded(msgspec.json.Decoder(kind), envelope.metadata)


def open_listing(envelope: Envelope) -> tuple[list[Row], list[OddRow]]:
    """Decode a listing into its rows, and into what can be said of those that do not decode.

    PayloadError when it is no listing at all, or more of it is odd than can be an accident.
    """
    # Only what is longer than that can have so many: others are not counted.
    if len(envelope.metadata) > MOST_COMMAS and bytes(envelope.metadata).count(b",") > MOST_COMMAS:
        raise PayloadError("it lists more than any host can have")
    try:
        return _rows.decode(envelope.metadata), []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    rows: list[Row] = []
    odd: list[OddRow] = []
    raws: list[msgspec.Raw] = _decoded(_raw_rows, envelope.metadata)
    for number, raw in enumerate(raws):
        try:
            rows.append(_decoded(_row, raw))
        except PayloadError as error:
            odd.append(_odd(raw, number, str(error)))
            if len(odd) > MOST_ODD_ROWS:
                raise PayloadError(f"more than {MOST_ODD_ROWS} of its rows cannot be read: {error}") from None
    return rows, odd


def _odd(raw: msgspec.Raw, number: int, doubt: str) -> OddRow:
    try:
        row = _decoded(_odd_row, raw)
    except PayloadError:
        row = OddRow()
    if not isinstance(row.name, str):
        row.name = f"row {number}"
    row.doubt = doubt[:MOST_TEXT]
    return row


def _decoded(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise PayloadError(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PayloadError(f"not JSON: {error}") from None
    except RecursionError:
        raise PayloadError("nested too deeply") from None
