"""Every error that the daemon answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lxdsched.listener.settings import Bounds
from lxdsched.web.description.forms import Schema, record, ref, text, whole
from lxdsched.web.description.told import degraded, exclusions, ignored_fields, summary
from lxdsched.web.ids import MOST

_BOUNDS = Bounds()
RETRY, ALLOW, WHO = "Retry-After", "Allow", "WWW-Authenticate"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of error, known by its `code`.

    `header` is what its answer carries beside the usual headers, `more` what its body has beside the usual keys.
    """

    code: str
    status: int
    when: str
    sentence: str
    header: str | None = None
    more: Mapping[str, Schema] = field(default_factory=dict)
    optional: Sequence[str] = ()
    example: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its schema."""
        return "".join(word.capitalize() for word in self.code.split("_"))

    def schema(self) -> Schema:
        """Describe its body."""
        return record(
            self.when,
            {
                "error": text("What is wrong, for people.", examples=[self.sentence]),
                "code": {"type": "string", "const": self.code, "description": "The same, for programs."},
                **self.more,
            },
            optional=self.optional,
        )

    def value(self) -> dict[str, Any]:
        """Give an example of it."""
        return {"error": self.sentence, "code": self.code, **self.example}


_REFUSED: dict[str, Schema] = {
    "summary": summary(),
    "hosts": exclusions(),
    "ignored_fields": ignored_fields(),
    "degraded": degraded(),
}
_SOMETIMES = ("ignored_fields", "degraded")


def _refused(reason: str, message: str, spoken: str) -> dict[str, object]:
    hosts = {"https://192.0.2.1:8443": {"reason": reason, "message": message}}
    return {"summary": f"0/1 hosts fit: 1 {spoken}", "hosts": hosts}


_SHORT = _refused("insufficient_cpu", "40 cores asked, 24 free of 64 (40 allocated)", "insufficient cpu")
_SMALL = _refused("insufficient_cpu", "100 cores asked, 64 free of 64 (0 allocated)", "insufficient cpu")
_GONE = _refused("unreachable", "connection refused", "unreachable")

_KINDS = (
    Kind(
        "invalid_request",
        400,
        "The request is not HTTP, its body is not JSON, or something in it is missing, mistyped or out of range: the "
        "sentence names the field by its path.",
        "cpu: must be between 1 and 1000000",
    ),
    Kind(
        "unauthenticated",
        401,
        "Access control is on, and the request has no key and no certificate that is known.",
        "who asks? Send a key as `Authorization: Bearer KEY`",
        WHO,
    ),
    Kind(
        "forbidden",
        403,
        "Access control is on, and who asks has not the right to this.",
        "eye has not the right 'schedule'",
    ),
    Kind("not_found", 404, "There is no such path, or no such reservation.", "there is nothing at this path"),
    Kind(
        "method_not_allowed",
        405,
        "The path takes other methods: the header `Allow` names them.",
        "this path takes POST",
        ALLOW,
    ),
    Kind(
        "request_timeout",
        408,
        f"The request took longer to send than it may ({_BOUNDS.sending:g} s, if not configured otherwise). The "
        "connection is closed.",
        "the request took longer than 10 s to send",
    ),
    Kind(
        "request_id_reused",
        409,
        "A request of the same client with this `request_id` lives that asked for something else.",
        "request_id: 'job-7' was used for another demand, which lives until it expires",
    ),
    Kind(
        "request_too_large",
        413,
        f"The body is longer than it may be ({_BOUNDS.body // 1024} KiB, if not configured otherwise). The "
        "connection is closed.",
        "the body is longer than 64 KiB",
    ),
    Kind(
        "never_fits",
        422,
        "None of the hosts asked about could hold it even when empty. There is no use in asking again.",
        "no suitable node found",
        more=_REFUSED,
        optional=_SOMETIMES,
        example=_SMALL,
    ),
    Kind(
        "headers_too_large",
        431,
        f"The request's head is longer than it may be ({_BOUNDS.head // 1024} KiB, if not configured otherwise). The "
        "connection is closed.",
        "the request's head is longer than 16 KiB or 500 lines",
    ),
    Kind(
        "internal_error",
        500,
        "lxdsched failed; its log has the traceback.",
        "lxdsched failed to answer this; its log says why",
    ),
    Kind(
        "no_capacity",
        503,
        "It would fit some host, but not now.",
        "no suitable node found",
        RETRY,
        _REFUSED,
        _SOMETIMES,
        _SHORT,
    ),
    Kind(
        "no_host_reachable",
        503,
        "No host could be asked.",
        "no host could be asked",
        RETRY,
        _REFUSED,
        _SOMETIMES,
        _GONE,
    ),
    Kind(
        "ledger_unavailable",
        503,
        "Redis is away, and the configuration says not to answer without it.",
        "reservations cannot be shared with the other replicas: Redis cannot be used",
        RETRY,
    ),
    Kind(
        "not_ready",
        503,
        "Not every host has been asked yet, none can be chosen, or Redis is needed and away: the sentence says which.",
        "no host can be scheduled on",
        RETRY,
        {"hosts": whole("All hosts."), "schedulable": whole("Those that may be chosen.")},
        example={"hosts": 1, "schedulable": 0},
    ),
    Kind(
        "overloaded",
        503,
        "More is asked at the same time than can be answered.",
        "too many requests at the same time",
        RETRY,
    ),
)

KINDS = {kind.code: kind for kind in _KINDS}
"""All kinds, by their codes."""

ANYWHERE = (
    "invalid_request",
    "request_timeout",
    "request_too_large",
    "headers_too_large",
    "internal_error",
    "overloaded",
)
"""What any request may be answered with."""

GUARDED = ("unauthenticated", "forbidden")
"""What a request may be answered with where access control is on."""


def schemas() -> dict[str, Schema]:
    """Describe the bodies of all."""
    return {kind.name: kind.schema() for kind in _KINDS}


def shared() -> dict[str, Schema]:
    """Describe the answers with each, to be referred to."""
    return {kind.name: _response([kind]) for kind in _KINDS}


def responses(codes: Sequence[str]) -> dict[str, Schema]:
    """Describe the answers with these codes, by their status."""
    by_status: dict[int, list[Kind]] = {}
    for kind in sorted((KINDS[code] for code in codes), key=lambda kind: kind.status):
        by_status.setdefault(kind.status, []).append(kind)
    return {
        str(status): {"$ref": f"#/components/responses/{kinds[0].name}"} if len(kinds) == 1 else _response(kinds)
        for status, kinds in by_status.items()
    }


def _response(kinds: Sequence[Kind]) -> Schema:
    names = dict.fromkeys(kind.header for kind in kinds if kind.header is not None)
    return {
        "description": "\n".join(f"- `{kind.code}`: {kind.when}" for kind in kinds)
        if len(kinds) > 1
        else kinds[0].when,
        "headers": headers(*names),
        "content": {
            "application/json": {
                "schema": _one_of(kinds) if len(kinds) > 1 else ref(kinds[0].name),
                "examples": {kind.code: {"value": kind.value()} for kind in kinds},
            }
        },
    }


def _one_of(kinds: Sequence[Kind]) -> Schema:
    mapping = {kind.code: f"#/components/schemas/{kind.name}" for kind in kinds}
    return {
        "oneOf": [ref(kind.name) for kind in kinds],
        "discriminator": {"propertyName": "code", "mapping": mapping},
    }


def headers(*names: str) -> Schema:
    """Refer to the headers of an answer: those that every one has, and these."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("Cache-Control", "X-Request-Id", *names)}


def components() -> dict[str, Schema]:
    """Describe the headers."""
    return {
        "Cache-Control": {
            "description": "No answer may be kept: the next one may be another.",
            "required": True,
            "schema": {"type": "string", "const": "no-store"},
        },
        "X-Request-Id": {
            "description": "What this request is called in the daemon's log: as the request's own `X-Request-Id` "
            "said, where that can stand there, else a new name.",
            "required": True,
            "schema": text("A name.", pattern=f"^[A-Za-z0-9._:/+=@-]{{1,{MOST}}}$"),
        },
        RETRY: {
            "description": "Seconds after which to try again.",
            "required": True,
            "schema": {"type": "integer", "minimum": 1, "examples": [5]},
        },
        ALLOW: {
            "description": "The methods that the path takes.",
            "required": True,
            "schema": text("Methods, with commas between.", examples=["GET, HEAD"]),
        },
        WHO: {
            "description": "How to say who asks.",
            "required": True,
            "schema": text("A challenge.", examples=['Bearer realm="lxdsched"']),
        },
    }
