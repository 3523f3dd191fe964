"""What the lines of the log say of clients and their requests."""

from __future__ import annotations

from collections.abc import Mapping

from lxdsched.listener.admission import address_of


def whence(peer: object) -> dict[str, str]:
    """Return the field of a line that says where a client is; none on a Unix socket."""
    host = address_of(peer)
    return {"client": host} if host else {}


def aside(peer: object, notes: Mapping[str, object]) -> str:
    """Say what a person wants to see of a request beside its line: who asked, and what came of it."""
    who = notes.get("caller") or address_of(peer)
    told = notes.get("host") or ", ".join(str(notes[name]) for name in ("reason", "summary") if name in notes)
    return (f" for {who}" if who else "") + (f": {told}" if told else "")
