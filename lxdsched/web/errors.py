"""Every error answer, on every path, is JSON: a sentence for a person and a code for a program."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lxdsched.quoting import in_json

JSON = "application/json"
LINE_END = b"\n"
"""What every answer in JSON ends with, so that a prompt that follows it has a line of its own."""


class ApiError(Exception):
    """An error to answer with. `more` are further keys of the answer, `headers` further headers."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        more: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.more = more or {}
        self.headers = headers or {}

    def body(self) -> bytes:
        """Return the answer's body."""
        return in_json(msgspec.json.encode({"error": self.message, "code": self.code, **self.more}))


def invalid_request(message: str) -> ApiError:
    """Say that a request is not what it should be; the message names the field by its path."""
    return ApiError(400, "invalid_request", message)


def not_found() -> ApiError:
    """Say that there is no such path."""
    return ApiError(404, "not_found", "there is nothing at this path")


def internal_error() -> ApiError:
    """Say that we failed; the log says how."""
    return ApiError(500, "internal_error", "lxdsched failed to answer this; its log says why")


def ledger_unavailable(message: str) -> ApiError:
    """Say that nothing may be promised now; another replica, or the same one in a moment, may answer."""
    return ApiError(503, "ledger_unavailable", message, headers={"Retry-After": "1"})


def overloaded() -> ApiError:
    """Say that as many requests are being answered as may be at the same time."""
    return ApiError(503, "overloaded", "too many requests at the same time", headers={"Retry-After": "1"})
