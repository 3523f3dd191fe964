"""The log: one event a line, as JSON for programs or as text for people.

JSON lines have the form of Go's `log/slog` JSON handler: `time`, `level`, `msg`, then the event's own fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)
from twisted.python.failure import Failure
from zope.interface import implementer

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

_encoder = msgspec.json.Encoder(enc_hook=str)

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
    levels = LogLevelFilterPredicate(defaultLogLevel=_THRESHOLDS[level])
    # It says when each connection to a host begins and ends, which is nothing that happened to the fleet.
    levels.setLogLevelForNamespace("twisted.web.client._HTTP11ClientFactory", LogLevel.warn)
    return FilteringLogObserver(LineObserver(stream, as_text if text else as_json), [levels])


def as_json(event: LogEvent) -> str:
    """Render an event as one JSON object."""
    line: dict[str, Any] = {
        "time": _time(event).isoformat().replace("+00:00", "Z"),
        "level": _LEVELS.get(event.get("log_level", LogLevel.info), "INFO"),
        "msg": _message(event),
        **_fields(event),
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        line["error"] = failure.getErrorMessage()
        line["traceback"] = failure.getTraceback()
    try:
        return _encoder.encode(line).decode()
    except Exception as error:  # a field that even str() fails on must not cost the line
        least = {key: line[key] for key in ("time", "level", "msg")}
        return _encoder.encode(least | {"unloggable": repr(error)}).decode()


def as_text(event: LogEvent) -> str:
    """Render an event for a person at a terminal."""
    level = _LEVELS.get(event.get("log_level", LogLevel.info), "INFO")
    line = f"{_time(event).astimezone():%H:%M:%S} {level:<5} {_printable(_message(event))}"
    failure = event.get("log_failure")
    return f"{line}\n{failure.getTraceback().rstrip()}" if isinstance(failure, Failure) else line


def _time(event: LogEvent) -> datetime:
    return datetime.fromtimestamp(event.get("log_time", 0), UTC)


def _message(event: LogEvent) -> str:
    text = formatEvent(event) or str(event.get("log_text", ""))
    return text.encode("utf-8", "replace").decode()  # half of a surrogate pair is no character


def _printable(text: str) -> str:
    """Show what a terminal would act on, so that nobody's text forges a line or moves the cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _fields(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if not key.startswith("log_") and key not in _FOREIGN}
