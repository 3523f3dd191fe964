"""The log: one event a line, as JSON for programs or as text for people.

JSON lines have the form of Go's `log/slog` JSON handler: `time`, `level`, `msg`, then the event's own fields, those
that do not begin with `log_`. A sentence that is a whole message is logged as `log_said`, so that it is not told twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    formatEvent,
)
from twisted.python.failure import Failure
from zope.interface import implementer, provider

from lxdsched.quoting import cut, in_json, one_line

_LEVELS = {
    LogLevel.debug: "DEBUG",
    LogLevel.info: "INFO",
    LogLevel.warn: "WARN",
    LogLevel.error: "ERROR",
    LogLevel.critical: "ERROR",
}
_THRESHOLDS = {"DEBUG": LogLevel.debug, "INFO": LogLevel.info, "WARN": LogLevel.warn, "ERROR": LogLevel.error}

# What Twisted adds to every event, beside its `log_*` keys: not ours, and not for the line.
_FOREIGN = frozenset({"isError", "failure", "why", "message", "time", "system", "format", "level", "msg", "log_io"})

_CHATTER = re.compile(
    r"\S+ starting on |\(.* Closed\)\Z|reactor class: |Main loop terminated\.|Unable to write to plugin cache "
)
"""What Twisted says of its own parts; we say in our words where we listen, and that we stop.

A daemon that may not write where it is installed, as is right, looks through the plugins without a cache, and works.
"""

_encoder = msgspec.json.Encoder(enc_hook=str)

MOST_MESSAGE = 8192
"""Characters of a message, and likewise of the others below."""
MOST_FIELD = 4096
MOST_TRACEBACK = 32_768
MOST_KEY = 64
MOST_FIELDS = 64
"""Fields of an event."""
_MOST_BITS = 64

Render = Callable[[LogEvent], str]


class Stream(Protocol):
    """Where lines go: a file, a terminal, or one of Twisted's rotating log files."""

    def write(self, data: str, /) -> object:
        """Take a text."""

    def flush(self) -> object:
        """Pass on what was taken."""


@implementer(ILogObserver)
class LineObserver:
    """Writes each event as a line to a stream, as long as the stream takes it."""

    def __init__(self, stream: Stream, render: Render) -> None:
        self._stream = stream
        self._render = render

    def __call__(self, event: LogEvent) -> None:
        """Write the event."""
        line = self._render(event) + "\n"
        try:
            self._write(line)
        except ValueError:
            # Closed: a log file whose rotation failed half-way. It may be possible again by now.
            try:
                getattr(self._stream, "reopen", lambda: None)()
                self._write(line)
            except (OSError, ValueError):
                return
        except OSError:
            # A full disk or a broken pipe: there is nowhere left to say it, answering goes on, and so may the log.
            return

    def _write(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()


def observer(stream: Stream, level: str, form: str) -> ILogObserver:
    """Make the observer for a stream: events from `level` on, as `json`, `text`, or `auto` (text on a terminal)."""
    text = form == "text" or (form == "auto" and getattr(stream, "isatty", lambda: False)())
    return filtered(LineObserver(stream, as_text if text else as_json), level)


def filtered(observer: ILogObserver, level: str) -> ILogObserver:
    """Let an observer have the events from `level` on, without what Twisted says of its own parts."""
    levels = LogLevelFilterPredicate(defaultLogLevel=_THRESHOLDS[level])
    # It says when each connection to a host begins and ends, which is nothing that happened to the fleet.
    levels.setLogLevelForNamespace("twisted.web.client._HTTP11ClientFactory", LogLevel.warn)
    quiet = [] if level == "DEBUG" else [_leave_out]
    return FilteringLogObserver(observer, [levels, *quiet])


@provider(ILogFilterPredicate)
def _leave_out(event: LogEvent) -> Any:
    namespace, said = event.get("log_namespace"), event.get("log_text") or event.get("log_format")
    foreign = isinstance(namespace, str) and (namespace == "log_legacy" or namespace.startswith("twisted."))
    chatter = foreign and event.get("log_level") is LogLevel.info and isinstance(said, str) and _CHATTER.match(said)
    return PredicateResult.no if chatter else PredicateResult.maybe


def as_json(event: LogEvent) -> str:
    """Render an event as one JSON object, of bounded length."""
    line: dict[str, Any] = {
        "time": _time(event).isoformat().replace("+00:00", "Z"),
        "level": level(event),
        "msg": _message(event),
        **fields(event),
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        line["error"] = _text(failure.getErrorMessage())
        line["traceback"] = _text(failure.getTraceback(), MOST_TRACEBACK)
    return in_json(_encoder.encode(line)).decode()


def as_text(event: LogEvent) -> str:
    """Render an event for a person at a terminal. Further lines, those of a traceback, are indented.

    What an event has as `log_aside` follows its message: in JSON there are fields for that.
    """
    return f"{_time(event).astimezone():%H:%M:%S} {level(event):<5} {told(event)}"


def told(event: LogEvent) -> str:
    """Say for a person what happened: the message with its aside, and a traceback in further lines, indented."""
    aside = event.get("log_aside")
    said = one_line(_message(event) + (_text(aside) if isinstance(aside, str) else ""))
    failure = event.get("log_failure")
    if not isinstance(failure, Failure):
        return said
    traceback = _text(failure.getTraceback(), MOST_TRACEBACK).splitlines()
    return "\n".join([said, *(f"  {one_line(each)}" for each in traceback)])


def _time(event: LogEvent) -> datetime:
    try:
        return datetime.fromtimestamp(event.get("log_time", 0), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def level(event: LogEvent) -> str:
    """Say how bad it is: DEBUG, INFO, WARN or ERROR."""
    try:
        return _LEVELS.get(event.get("log_level", LogLevel.info), "INFO")
    except TypeError:  # no level can be a list
        return "INFO"


def _message(event: LogEvent) -> str:
    return _text(formatEvent(event) or _shown(event.get("log_text", "")), MOST_MESSAGE)


def fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the event's own fields, each of which becomes something that JSON can hold."""
    found: dict[str, Any] = {}
    for key, value in event.items():
        if not isinstance(key, str) or key.startswith("log_") or key in _FOREIGN:
            continue
        if len(found) == MOST_FIELDS:
            break
        found[_text(key, MOST_KEY)] = _field(value)
    return found


def _field(value: object) -> object:
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, float) or (type(value) is int and value.bit_length() <= _MOST_BITS):
        return value
    try:
        encoded = _encoder.encode(value)
    except Exception:  # nested for ever, half a surrogate pair within, or what even str() fails on
        return _text(_shown(value))
    return msgspec.Raw(encoded) if len(encoded) <= MOST_FIELD else _text(_shown(value))


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<a {type(value).__name__} that cannot be shown>"


def _text(text: str, most: int = MOST_FIELD) -> str:
    shown = cut(text, most)
    # Half of a surrogate pair is no character.
    return shown if shown.isascii() else shown.encode("utf-8", "replace").decode()
