"""What the simulated server answers, in LXD's envelopes.

Every answer of LXD is one of three envelopes: `sync` with its `metadata`, `async` with an operation to wait for,
and `error` with a code that is the HTTP status as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import msgspec

NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class LXDError(Exception):
    """A request that LXD refuses: its error code (the HTTP status) and its sentence."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status, JSON body and, where something was made, its location."""

    status: int
    body: bytes
    location: str | None = None


def encode(value: object) -> bytes:
    """Write JSON as Go's encoder does: compact, and ended by a line feed."""
    return msgspec.json.encode(value) + b"\n"


def sync(metadata: object) -> Answer:
    """A finished request with what it found."""
    return Answer(200, sync_body(metadata))


def sync_body(metadata: object) -> bytes:
    """The bytes of a `sync` envelope."""
    return encode(
        {
            "type": "sync",
            "status": "Success",
            "status_code": 200,
            "operation": "",
            "error_code": 0,
            "error": "",
            "metadata": metadata,
        }
    )


def created(location: str) -> Answer:
    """Something new was stored under `location`."""
    return Answer(201, sync_body(None), location)


def done() -> Answer:
    """A change took effect. LXD says so with an empty object."""
    return sync({})


def error(problem: LXDError) -> Answer:
    """The envelope of a refusal."""
    body = {
        "type": "error",
        "status": "",
        "status_code": 0,
        "operation": "",
        "error_code": problem.code,
        "error": problem.message,
        "metadata": None,
    }
    return Answer(problem.code, encode(body))


@dataclass(frozen=True, slots=True)
class Operation:
    """Something LXD does in the background. The sandbox does it at once and remembers how it ended."""

    description: str
    resources: dict[str, list[str]] | None
    location: str
    at: datetime
    failure: str | None = None
    uuid: str = ""

    @property
    def url(self) -> str:
        """Where the operation is asked about."""
        return f"/1.0/operations/{self.uuid}"

    @property
    def outcome(self) -> str:
        """How it ended, as the list of operations groups them."""
        return "success" if self.failure is None else "failure"

    def row(self, *, running: bool = False) -> dict[str, object]:
        """The operation as LXD shows it: while it runs, or as it ended."""
        status, code = ("Success", 200) if self.failure is None else ("Failure", 400)
        if running:
            status, code = "Running", 103
        return {
            "id": self.uuid,
            "class": "task",
            "description": self.description,
            "created_at": timestamp(self.at),
            "updated_at": timestamp(self.at),
            "status": status,
            "status_code": code,
            "resources": self.resources,
            "metadata": None,
            "may_cancel": False,
            "err": "" if running or self.failure is None else self.failure,
            "location": self.location,
        }

    def answer(self) -> Answer:
        """Say that the operation was begun: LXD never says more than that in the first answer."""
        body = {
            "type": "async",
            "status": "Operation created",
            "status_code": 100,
            "operation": self.url,
            "error_code": 0,
            "error": "",
            "metadata": self.row(running=True),
        }
        return Answer(202, encode(body), self.url)


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def new_uuid() -> str:
    """A fresh identifier."""
    return str(uuid4())


def timestamp(moment: datetime) -> str:
    """A moment in RFC 3339 with a `Z`, as LXD writes them."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def in_project(url: str, project: str) -> str:
    """The address of a thing that lives in a project: LXD names every project but the default one."""
    return url if project == "default" else f"{url}?project={project}"


def listing(urls: Sequence[str]) -> Answer:
    """A list without recursion: addresses alone."""
    return sync(list(urls))
