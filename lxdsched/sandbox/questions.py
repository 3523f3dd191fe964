"""One request as the endpoints see it, without any HTTP."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from lxdsched.sandbox.answers import Answer, LXDError
from lxdsched.sandbox.database import Database
from lxdsched.sandbox.events import Cause, Requestor
from lxdsched.sandbox.state import Caller, ServerState

_TRUE = frozenset({"1", "true", "yes", "on"})


def forbidden() -> LXDError:
    """What LXD says to whoever may not."""
    return LXDError(403, "not authorized")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, by whom, of which server: the query's arguments, the names in the path, the raw body."""

    state: ServerState
    caller: Caller
    names: Mapping[str, str]
    arguments: Mapping[str, str]
    body: bytes

    @property
    def database(self) -> Database:
        """The database of the server asked."""
        return self.state.database

    @property
    def cause(self) -> Cause:
        """Why what comes of this question happens."""
        return Cause(self.state.location, Requestor(self.caller.fingerprint, "tls", self.caller.address))

    @property
    def project(self) -> str:
        """The project asked about."""
        return self.arguments.get("project") or "default"

    @property
    def all_projects(self) -> bool:
        """Whether every project is asked about."""
        return self.arguments.get("all-projects", "").lower() in _TRUE

    @property
    def recursion(self) -> int:
        """0 for addresses, 1 for rows, 2 for everything; what is no number is 0 to LXD."""
        text = self.arguments.get("recursion", "0")
        return int(text) if text.isdecimal() else 0

    def member(self, name: str) -> ServerState:
        """One member of the cluster; raises a 404 LXDError when there is none of that name."""
        members = self.database.members
        if not self.state.clustered or name not in members:
            raise LXDError(404, "Cluster member not found")
        return members[name]

    def allowed_project(self) -> str:
        """The project asked about; raises a 403 LXDError when the caller may not use it."""
        if not self.caller.may_use(self.project):
            raise forbidden()
        return self.project

    def require_unrestricted(self) -> None:
        """Raise a 403 LXDError for a caller that is confined to projects."""
        if self.caller.restricted:
            raise forbidden()


@dataclass(frozen=True, slots=True)
class Subscription:
    """The stream of events that an endpoint grants: those of some projects or, with None, of all."""

    projects: Collection[str] | None


Endpoint = Callable[[Question], Answer | Subscription]
