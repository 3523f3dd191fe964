"""Finds out which client a key or a certificate belongs to."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from datetime import datetime

from lxdsched.access.certificates import plain_name
from lxdsched.access.keys import digest, key_id
from lxdsched.access.times import moment
from lxdsched.access.values import Client, Entry, Key, Shown, Stranger

_NOBODYS = digest("")
"""The digest of no key: what a key of an unknown id is compared with, so that it takes as long as any other."""


class Clients:
    """All clients there are. Immutable; that no two share a credential is the reader's to see to."""

    __slots__ = ("_fingerprints", "_keys", "_names", "entries")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = tuple(entries)
        self._keys: dict[str, tuple[Key, Client]] = {}
        self._fingerprints: dict[str, Client] = {}
        self._names: dict[str, Client] = {}
        for entry in self.entries:
            self._keys.update((key.id, (key, entry.client)) for key in entry.keys)
            self._fingerprints.update(dict.fromkeys(entry.fingerprints, entry.client))
            self._names.update(dict.fromkeys(entry.names, entry.client))

    @property
    def take_certificates(self) -> bool:
        """Whether any client is known by a certificate, so that it makes sense to ask peers for theirs."""
        return bool(self._fingerprints or self._names)

    def by_key(self, key: str, now: datetime) -> Client:
        """Return the client that has this key. Stranger when it is no key, is unknown, or has expired."""
        wanted = key_id(key)
        known, client = self._keys.get(wanted, (None, None))
        same = hmac.compare_digest(digest(key), _NOBODYS if known is None else known.digest)
        if known is None or client is None or not same:
            raise Stranger(f"the key {wanted} is not known")
        if known.expires is not None and known.expired(now):
            raise Stranger(f"the key {wanted} expired on {moment(known.expires)}")
        return client

    def by_certificate(self, shown: Shown, now: datetime) -> Client:
        """Return the client that has this certificate: by its fingerprint, else by a name that our CA put into it.

        Stranger when neither is known, the chain is not ours, or it is not within its dates.
        """
        client = self._fingerprints.get(shown.fingerprint) or self._named(shown)
        if now < shown.not_before:
            raise Stranger(f"the certificate {shown.fingerprint} is not valid before {moment(shown.not_before)}")
        if now > shown.not_after:
            raise Stranger(f"the certificate {shown.fingerprint} expired on {moment(shown.not_after)}")
        return client

    def _named(self, shown: Shown) -> Client:
        # The chain comes first: nobody learns who is known here by making certificates.
        if shown.problem is not None:
            raise Stranger(
                f"the certificate {shown.fingerprint} is not known, and its names prove nothing: {shown.problem}"
            )
        found = {client.name: client for name in shown.names if (client := self._names.get(plain_name(name)))}
        if not found:
            raise Stranger(f"the certificate {shown.fingerprint} is not known, nor is a name in it")
        if len(found) > 1:
            raise Stranger(f"the certificate {shown.fingerprint} has the names of more than one client")
        return next(iter(found.values()))
