"""What LXD's answers mean: the fields that we use, and nothing else of them.

Decoding is strict about the types of those fields, and about how much of each there is: what is decoded is kept, shown
and logged, and a host may say anything.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

T = TypeVar("T")


MOST_TEXT = 200
"""Characters of a host's text that are passed on to people."""
MOST_NAME = 255
"""Characters that a name may have, of whatever a host gives one: LXD's own have 63 at most."""
MOST_CPUS = 8192
"""More threads than Linux can use."""
MOST_DETAILS = 200_000
"""Commas that an answer other than a listing may have: that of a machine with a thousand threads has some 20,000."""
MOST_PLAIN = 4 * 1024**2
"""Bytes that an answer other than a listing may have."""

Name = Annotated[str, msgspec.Meta(max_length=MOST_NAME)]


class PayloadError(ValueError):
    """An answer that is not what LXD's API promises. The message says where."""


class Envelope(msgspec.Struct):
    """What every answer of LXD is wrapped in. `type` is `sync` when all is well, else `error_code` not 0."""

    type: Name = ""
    error_code: Annotated[int, msgspec.Meta(ge=0, le=999)] = 0
    error: str = ""
    metadata: msgspec.Raw = msgspec.Raw(b"null")


class Environment(msgspec.Struct):
    """The part of `/1.0` that a trusted client sees."""

    server_name: Name
    server_clustered: bool = False
    architectures: Annotated[list[Name], msgspec.Meta(max_length=32)] = []
    driver: Name = ""
    instance_types: list[str] | None = None
    server: Name = ""
    server_version: Name = ""


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

    id: Annotated[int, msgspec.Meta(ge=0, lt=MOST_CPUS)]
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

    restricted: bool


class Row(msgspec.Struct):
    """An instance of `GET /1.0/instances?recursion=1`. A row of an offline cluster member has no config."""

    name: Name
    status: Name
    type: Name = ""
    project: Name = "default"
    location: Name = ""
    expanded_config: dict[str, str] | None = None


_envelope = msgspec.json.Decoder(Envelope)


def open_envelope(body: bytes) -> Envelope:
    """Decode the wrapping of an answer. PayloadError when it is not LXD's."""
    return decoded(_envelope, body)


def open_metadata(envelope: Envelope, kind: type[T]) -> T:
    """Decode what an answer says that is no listing. PayloadError when it is not of this kind, or endless."""
    if len(envelope.metadata) > MOST_PLAIN or bytes(envelope.metadata).count(b",") > MOST_DETAILS:
        raise PayloadError("it says more than any host can have to say")
    # For numbers such as 1e308, msgspec itself takes 400 times as long.
    return decoded(msgspec.json.Decoder(kind, float_hook=float), envelope.metadata)


def decoded(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T:
    """Decode JSON. PayloadError for whatever is wrong with it."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise PayloadError(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PayloadError(f"not JSON: {error}") from None
    except RecursionError:
        raise PayloadError("nested too deeply") from None
