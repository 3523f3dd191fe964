"""Holds served answers to the daemon's own description."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from lxdsched.strategies import BUILT_IN
from lxdsched.web.description import describe
from lxdsched.web.description.errors import KINDS

ANYWHERE = {400, 401, 404, 405, 408, 413, 431, 500, 503}
"""What a request may be answered with that is for no endpoint."""

_PLAIN = {
    "connection",
    "content-length",
    "content-type",
    "date",
    "server",
    "transfer-encoding",
    "x-content-type-options",
}
"""Headers that HTTP itself describes, or that are for browsers alone."""


@cache
def document() -> dict[str, Any]:
    """Return the description of a daemon with every strategy."""
    found = json.loads(describe([strategy.name for strategy in BUILT_IN]))
    assert isinstance(found, dict)
    return found


def conforms(method: str, path: str, status: int, headers: Mapping[str, str], body: object) -> None:
    """Fail unless an answer is described; its body is as it was decoded, None for none."""
    described = _operation(method, path)
    if described is None:
        assert status in ANYWHERE, f"{method} {path} is not described, and answered with {status}"
        conforms_as_error(status, headers, body)
        return
    assert str(status) in described["responses"], f"{method} {path}: {status} is not described"
    answer = _resolved(described["responses"][str(status)])
    where = f"{method} {path}: {status}"
    _check_headers(where, answer, headers)
    if method == "HEAD" or "content" not in answer:
        assert body is None, where
        return
    kind = headers["content-type"].partition(";")[0]
    assert kind in answer["content"], f"{where}: {kind} is not described"
    _check(where, answer["content"][kind]["schema"], body)


def conforms_as_error(status: int, headers: Mapping[str, str], body: object) -> None:
    """Fail unless an answer is an error that is described, whatever it was that was asked."""
    assert isinstance(body, dict), f"{status}: {body!r} is no error"
    code = str(body.get("code"))
    assert code in KINDS, f"{status}: {code} is not described"
    assert KINDS[code].status == status, f"{code} has not the status {status}"
    answer = document()["components"]["responses"][KINDS[code].name]
    _check_headers(code, answer, headers)
    assert headers["content-type"] == "application/json"
    _check(code, answer["content"]["application/json"]["schema"], body)


def faults(schema: Mapping[str, Any], value: object) -> Iterator[str]:
    """Tell what is wrong with a value by a schema of the description."""
    for error in _validator(json.dumps(schema, sort_keys=True)).iter_errors(value):
        yield f"{error.json_path}: {error.message}"


@cache
def _validator(schema: str) -> Draft202012Validator:
    # References are to the root, so what they refer to goes there.
    whole = json.loads(schema) | {"components": document()["components"]}
    return Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)


def _operation(method: str, path: str) -> dict[str, Any] | None:
    parts = path.partition("?")[0].split("/")
    for template, operations in document()["paths"].items():
        wanted = template.split("/")
        if len(wanted) == len(parts) and all(
            want == part or (part and want.startswith("{")) for want, part in zip(wanted, parts, strict=True)
        ):
            found = operations.get("get" if method == "HEAD" else method.lower())
            return dict(found) if found else None
    return None


def _resolved(part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        found = document()
        for key in part["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        part = found
    return part


def _check_headers(where: str, answer: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    described = {name.lower(): _resolved(header) for name, header in answer["headers"].items()}
    unknown = {name.lower() for name in headers} - described.keys() - _PLAIN
    assert not unknown, f"{where}: {unknown} are not described"
    for name, header in described.items():
        if name in headers:
            value: object = headers[name]
            if header["schema"]["type"] == "integer":
                value = int(headers[name])
            _check(f"{where}, {name}", header["schema"], value)
        else:
            assert not header.get("required"), f"{where}: {name} is missing"


def _check(where: str, schema: Mapping[str, Any], value: object) -> None:
    wrong = list(faults(schema, value))
    assert not wrong, f"{where}: {value!r} is not as described: {wrong}"
