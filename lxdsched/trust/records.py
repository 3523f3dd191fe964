"""What is known of hosts that are trusted on first use, and how it changes. Pure; hosts are known by their URL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

Fingerprint = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Shown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate that a host showed and that is not trusted. All but the fingerprint is there for people.

    `at` is when it was first shown. Whoever answered at the host's address may have made it up.
    """

    fingerprint: Fingerprint
    at: Moment
    subject: str = ""
    names: tuple[str, ...] = ()
    not_before: Moment | None = None
    not_after: Moment | None = None


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is trusted of one host: since when, by whose word, and what it has shown instead since then."""

    fingerprint: Fingerprint
    since: Moment
    by: Literal["first_use", "person"]
    offered: Shown | None = None


Hosts = Mapping[str, Known]


def remember(hosts: Hosts, fresh: Hosts, offers: Mapping[str, Shown]) -> dict[str, Known]:
    """Add hosts that were met for the first time, and what known ones have shown.

    Who wrote first was first: a host that is known stays as it is. What is offered of a host that has been forgotten
    meanwhile is left out.
    """
    after = {**fresh, **hosts}
    for url, shown in offers.items():
        known = after.get(url)
        if known is not None and shown.fingerprint not in {known.fingerprint, offered(known)}:
            after[url] = replace(known, offered=shown)
    return after


def accept(hosts: Hosts, url: str, fingerprint: str, at: datetime) -> dict[str, Known]:
    """Trust a certificate by a person's word. What else the host offers goes on waiting."""
    before = hosts.get(url)
    waiting = None if before is None or offered(before) == fingerprint else before.offered
    since = before.since if before is not None and before.fingerprint == fingerprint else at
    return {**hosts, url: Known(fingerprint, since, "person", waiting)}


def forget(hosts: Hosts, url: str) -> dict[str, Known]:
    """Know nothing of a host any more."""
    return {each: known for each, known in hosts.items() if each != url}


def offered(known: Known) -> str | None:
    """Return the fingerprint that waits for a person, None when none does."""
    return None if known.offered is None else known.offered.fingerprint
