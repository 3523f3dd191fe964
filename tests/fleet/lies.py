"""Lies: a truthful answer in which one value is another one, left out, or said twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from lxdsched.sandbox.faults import Exchange, Fault

_MARK = "\x00lie\x00"
_MARKED = json.dumps(_MARK).encode()
_SAMPLE = 2
"""Items of a list in which lies are told: the others are like them."""

Path = tuple[str | int, ...]

SMALL: Mapping[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "zero": b"0",
    "minus zero": b"-0",
    "minus": b"-1",
    "a fraction": b"1.5",
    "2**31": b"2147483648",
    "2**63": b"9223372036854775808",
    "-2**63 - 1": b"-9223372036854775809",
    "2**70": b"1180591620717411303424",
    "4,000 digits": b"1" * 4000,
    "5,000 digits": b"1" * 5000,
    "1e400": b"1e400",
    "-1e400": b"-1e400",
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "no text": b'""',
    "a number's text": b'"-7"',
    "a huge size": b'"9999999999999999999EiB"',
    "many percent": b'"999999999%"',
    "pins": b'"0-999999999"',
    "another's name": b'"lxdsched"',
    "upwards": b'"../../../etc"',
    "quoted": b'"%2e%2e%2f%00%0a"',
    "an address": b'"https://elsewhere:8443/1.0"',
    "orders to a terminal": b'"a\\u001b]0;owned\\u0007\\u001b[2J\\r\\nERROR all is lost\\u0000\\u202e"',
    "half a character": b'"\\ud800"',
    "no UTF-8": b'"\xff\xfe"',
    "a bare newline": b'"a\nb"',
    "an empty list": b"[]",
    "a list": b'[1,"2",null,{}]',
    "an empty object": b"{}",
    "an object": b'{"name":{"name":[]},"limits.cpu":2,"user.lxdsched.drain":[true]}',
}
LARGE: Mapping[str, bytes] = {
    "300 characters": b'"' + b"n" * 300 + b'"',
    "4 MB": b'"' + b"x" * 4_000_000 + b'"',
    "4 MB of escapes": b'"' + b"\\u001b" * 700_000 + b'"',
    "a million digits": b"9" * 1_000_000,
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "an endless list": b"[" + b"7," * 300_000 + b"7]",
    "an endless list of texts": b"[" + b'"x86_64",' * 150_000 + b'"x86_64"]',
    "an endless object": b"{" + b",".join(b'"%d":""' % number for number in range(150_000)) + b"}",
}


@dataclass(frozen=True, slots=True)
class Lie:
    """An answer's `body`, and in `what` what is wrong with it, at which `path`."""

    what: str
    path: Path
    body: bytes

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path)) or 'all of it'}: {self.what}"


def paths(truth: object, prefix: Path = ()) -> Iterator[Path]:
    """Find the path of every value in an answer, its own first."""
    yield prefix
    if isinstance(truth, dict):
        for key, value in truth.items():
            yield from paths(value, (*prefix, key))
    elif isinstance(truth, list):
        for number, value in enumerate(truth[:_SAMPLE]):
            yield from paths(value, (*prefix, number))


def lies(body: bytes, only: str | None = None, values: Mapping[str, bytes] = SMALL) -> Iterator[Lie]:
    """Tell the truth of `body` with every lie of the catalogue at every path, or only where a path ends in `only`."""
    truth = json.loads(body)
    for path in paths(truth):
        if only is not None and (not path or path[-1] != only):
            continue
        for what, value in values.items():
            yield Lie(what, path, instead(truth, path, value))
            if path and isinstance(path[-1], str):
                key = json.dumps(path[-1]).encode()
                yield Lie(f"first the truth, then {what}", path, twice(truth, path, key, value))
        if path:
            yield Lie("left out", path, without(truth, path))
            yield Lie("said twice", path, again(truth, path))


def instead(truth: Any, path: Path, value: bytes) -> bytes:
    """Say something instead of the value at a path."""
    return json.dumps(_put(truth, path, _MARK)).encode().replace(_MARKED, value)


def twice(truth: Any, path: Path, key: bytes, value: bytes) -> bytes:
    """Say something else under the same key, after the truth."""
    return instead(truth, path, json.dumps(_at(truth, path)).encode() + b"," + key + b":" + value)


def without(truth: Any, path: Path) -> bytes:
    """Leave out the value at a path."""
    changed = deepcopy(truth)
    del _at(changed, path[:-1])[path[-1]]
    return json.dumps(changed).encode()


def again(truth: Any, path: Path) -> bytes:
    """Say the value at a path twice, with its key or as two items of a list."""
    value = json.dumps(_at(truth, path)).encode()
    key = json.dumps(path[-1]).encode() + b":" if isinstance(path[-1], str) else b""
    return instead(truth, path, value + b"," + key + value)


def _at(truth: Any, path: Path) -> Any:
    for step in path:
        truth = truth[step]
    return truth


def _put(truth: Any, path: Path, value: object) -> Any:
    if not path:
        return value
    changed = deepcopy(truth)
    _at(changed, path[:-1])[path[-1]] = value
    return changed


@dataclass(frozen=True, kw_only=True)
class Liar(Fault):
    """Answers some paths with what the test says, all others as if there were no fault.

    `bodies` are sent as JSON with the status 200, `raw` to the byte; the connection stays open after these, and is of
    no more use, unless they `end` it.
    """

    bodies: Mapping[str, bytes] = field(default_factory=dict)
    raw: Mapping[str, bytes] = field(default_factory=dict)
    end: bool = False

    def strike(self, exchange: Exchange) -> None:
        """Lie."""
        path = exchange.request.path.decode()
        if path in self.raw:
            exchange.write_raw(self.raw[path])
            if self.end:
                exchange.hang_up()
        elif path in self.bodies:
            body = self.bodies[path]
            exchange.request.setHeader(b"content-type", b"application/json")
            exchange.request.setHeader(b"content-length", b"%d" % len(body))
            exchange.request.write(body)
            exchange.request.finish()
        else:
            exchange.proceed()
