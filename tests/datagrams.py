"""What we tell systemd, as it hears it: a socket for datagrams, and what they say."""

from __future__ import annotations

import select
import socket
from pathlib import Path
from struct import unpack_from
from types import TracebackType


class Heard:
    """A socket for datagrams at a path, an abstract one where that begins with @."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.path[1:] if self.path.startswith("@") else self.path)

    def __enter__(self) -> Heard:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.socket.close()

    def next(self, within: float) -> dict[str, str] | None:
        """Return what the next one assigns, None where none comes within some seconds."""
        return assigned(self.socket.recv(1 << 20)) if select.select([self.socket], [], [], within)[0] else None

    def told(self) -> list[dict[str, str]]:
        """Return what those assign that have come."""
        found = []
        while (told := self.next(0)) is not None:
            found.append(told)
        return found


def assigned(datagram: bytes) -> dict[str, str]:
    """Read a datagram as systemd does, the journal too: `NAME=value` lines, and values with a length before them."""
    found: dict[str, str] = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, plain, value = line.partition(b"=")
        if not plain:
            (length,) = unpack_from("<Q", datagram)
            value, datagram = datagram[8 : 8 + length], datagram[8 + length + 1 :]
        found[name.decode()] = value.decode()
    return found
