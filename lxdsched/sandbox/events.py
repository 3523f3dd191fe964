"""What a server says when something has happened: LXD's lifecycle events, and why they were.

An LXD tells less than an Incus: not who created, changed, renamed or deleted an instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lxdsched.sandbox.answers import encode, timestamp

LXD = "lxd"
INCUS = "incus"

_ANONYMOUS = frozenset({"instance-created", "instance-updated", "instance-renamed", "instance-deleted"})


@dataclass(frozen=True, slots=True)
class Requestor:
    """Who asked: the fingerprint of a client's certificate, and where the client is (`host:port`).

    All is empty in what the members of a cluster say of a change that another one was asked for.
    """

    username: str = ""
    protocol: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something changed: which server was asked (its location, the first member's when empty), and by whom."""

    location: str = ""
    requestor: Requestor | None = None


UNASKED = Cause()
"""It happened by itself, or behind the API's back."""


@dataclass(frozen=True, slots=True)
class Event:
    """One lifecycle event. `action` and `source` are LXD's words; `name` is the instance's it is about, if any.

    `location` is the member that tells it, `none` outside a cluster; `project` is that of what changed, and `default`
    where there is none. `at` must be aware.
    """

    action: str
    source: str
    project: str
    location: str
    at: datetime
    requestor: Requestor | None = None
    name: str = ""
    context: Mapping[str, object] = field(default_factory=dict)

    def message(self, flavour: str) -> str:
        """The text of the websocket's message, as `"lxd"` or as `"incus"`."""
        incus = flavour == INCUS
        metadata: dict[str, object] = {"action": self.action, "source": self.source}
        if self.context:
            created = {"location": self.location} if incus and self.action == "instance-created" else {}
            metadata["context"] = created | dict(self.context)
        if self.requestor is not None and (incus or self.action not in _ANONYMOUS):
            address = self.requestor.address
            metadata["requestor"] = {
                "username": self.requestor.username,
                "protocol": self.requestor.protocol,
                "address": address.rpartition(":")[0] if incus else address,
            }
        if incus and self.name:
            metadata |= {"name": self.name, "project": self.project}
        return encode(
            {
                "type": "lifecycle",
                "timestamp": timestamp(self.at),
                "metadata": metadata,
                "location": self.location,
                "project": self.project,
            }
        ).decode()
