"""The values of access control. Every time is aware of its zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Right(StrEnum):
    """What a client may do: ask for hosts and give them back, look at everything, or all there is."""

    SCHEDULE = "schedule"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who is known."""

    name: str
    rights: frozenset[Right]

    def may(self, right: Right) -> bool:
        """Tell whether it has this right; who has `admin` has all."""
        return right in self.rights or Right.ADMIN in self.rights


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate that a peer has shown, and proven to own.

    `fingerprint` is the SHA-256 of its DER in hex, `names` are what `certificate_names` finds. `problem` is what speaks
    against its chain, as the end of a sentence; None when it was issued by our CA.
    """

    fingerprint: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    problem: str | None


class Stranger(Exception):  # noqa: N818
    """The peer is no client of ours. The message is why, a sentence that the peer may see: it never repeats a key."""


@dataclass(frozen=True, slots=True)
class Key:
    """What we keep of a key: its public `id`, and the SHA-256 of the whole key. Without `expires` it never ends."""

    id: str
    digest: bytes
    created: datetime
    expires: datetime | None = None

    def expired(self, now: datetime) -> bool:
        """Tell whether it has ended."""
        return self.expires is not None and self.expires <= now


@dataclass(frozen=True, slots=True)
class Entry:
    """A client with all by which it is known: keys, fingerprints of certificates, names in certificates of our CA.

    Fingerprints are in small hexadecimal digits, names as `plain_name` has them.
    """

    client: Client
    keys: tuple[Key, ...] = ()
    fingerprints: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
