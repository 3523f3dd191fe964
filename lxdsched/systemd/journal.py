"""The log as systemd's journal has it: each event with its fields, by which `journalctl` finds it.

The form is the journal's native protocol (systemd's "Native Journal Protocol"): one datagram an event.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from errno import EMSGSIZE
from struct import pack

import msgspec
from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from lxdsched import logs

SOCKET = "/run/systemd/journal/socket"
STREAM_VARIABLE = "JOURNAL_STREAM"
PREFIX = "LXDSCHED_"
"""How the names of an event's own fields begin: the journal has names of its own."""
_MOST_NAME = 64
"""Characters of a field's name that the journal takes."""
_NO_NAME = re.compile("[^A-Z0-9_]")
_PRIORITIES = {"DEBUG": "7", "INFO": "6", "WARN": "4", "ERROR": "3"}
"""syslog(3)'s."""


class JournalError(Exception):
    """The journal cannot be reached; the message says why."""


def is_journal(stream: logs.Stream, environment: Mapping[str, str]) -> bool:
    """Say whether what is written to a stream goes to the journal, as systemd says in the environment."""
    try:
        found = os.fstat(stream.fileno())  # type: ignore[attr-defined]  # what has none is no stream of systemd's
    except (AttributeError, OSError, ValueError):
        return False
    return environment.get(STREAM_VARIABLE) == f"{found.st_dev}:{found.st_ino}"


def observer(level: str, path: str = SOCKET) -> ILogObserver:
    """Make the observer for the journal: events from `level` on. JournalError where there is none."""
    try:
        return logs.filtered(JournalObserver(path), level)
    except OSError as error:
        raise JournalError(f"the journal cannot be reached: {path}: {error.strerror}") from None


@implementer(ILogObserver)
class JournalObserver:
    """Hands each event to the journal, which is not waited for: where it is too slow, it is told how many are lost.

    OSError when there is none at this path.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.connect(path)
        self._lost = 0

    def __call__(self, event: LogEvent) -> None:
        """Hand over the event."""
        if self._lost and self._send("WARN", f"{self._lost} events before this one are lost", {}):
            self._lost = 0
        if not self._send(logs.level(event), logs.told(event), logs.fields(event)):
            self._lost += 1

    def _send(self, level: str, message: str, fields: Mapping[str, object]) -> bool:
        try:
            self._socket.sendto(_entry(level, message, fields), self._path)
        except OSError as error:
            # More than a datagram can have is seldom: the fields of one event, each as long as it may be.
            return error.errno == EMSGSIZE and bool(fields) and self._send(level, message, {})
        return True


def _entry(level: str, message: str, fields: Mapping[str, object]) -> bytes:
    head = {"MESSAGE": message, "PRIORITY": _PRIORITIES[level], "SYSLOG_IDENTIFIER": "lxdsched"}
    return b"".join(_assign(name, value) for name, value in (*head.items(), *_own(fields)))


def _own(fields: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        yield (PREFIX + _NO_NAME.sub("_", name.upper()))[:_MOST_NAME], shown


def _assign(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), pack("<Q", len(data)), data)
    return b"%s=%s\n" % (name.encode(), data)
