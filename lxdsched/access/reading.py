"""Reads the clients file: one table a client, named by the client, with its rights and credentials.

What is wrong is said without showing values that may be secrets by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from lxdsched.access.certificates import plain_name
from lxdsched.access.clients import Clients
from lxdsched.access.keys import is_id
from lxdsched.access.values import Client, Entry, Key, Right
from lxdsched.smallfiles import read_toml
from lxdsched.spelling import meant
from lxdsched.tls import IdentityError, read_fingerprint

NAME_GRAMMAR = "1 to 64 of A-Z, a-z, 0-9 and . _ @ -"
"""What a client may be called, for people."""

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}\Z")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")
_LONGEST_NAME = 1024
"""Characters of the longest name in a certificate that makes sense, which would be a URI."""
_SHOWN = 40
"""Characters of a wrong word that a fault shows."""

_CLIENT_KEYS = ("rights", "keys", "fingerprints", "names")
_KEY_KEYS = ("id", "sha256", "created", "expires")

T = TypeVar("T")


class ClientsError(Exception):
    """The clients file cannot be used. `faults` are all that is wrong with it, each naming the file and the place."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class ClientsFault(ValueError):  # noqa: N818
    """What is wrong with a value, as the second half of a sentence that begins with its place."""


def read_clients(text: bytes, where: str) -> Clients:
    """Read the content of a clients file, which faults call `where`. ClientsError with every fault."""
    try:
        tables = read_toml(text)
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, or of a number with too many digits
        raise ClientsError([f"{where}: not a TOML file: {error}"]) from None
    reader = _Reader(where)
    entries = [reader.client(name, table) for name, table in tables.items()]
    if reader.faults:
        raise ClientsError(reader.faults)
    return Clients(entry for entry in entries if entry is not None)


def is_name(text: str) -> bool:
    """Tell whether a client may be called so."""
    return _NAME.match(text) is not None


def read_right(word: object) -> Right:
    """Read one right. ClientsFault when it is none."""
    known = [right.value for right in Right]
    if not isinstance(word, str):
        raise ClientsFault(f"must be one of {', '.join(known)}")
    if word not in known:
        raise ClientsFault(f"is {_shown(word)}, not one of {', '.join(known)}{meant(word, known)}")
    return Right(word)


class _Reader:
    def __init__(self, where: str) -> None:
        self._where = where
        self._places: dict[tuple[str, str], str] = {}
        self.faults: list[str] = []

    def client(self, name: str, table: object) -> Entry | None:
        """Read one client; None, and faults, when something is wrong with it."""
        before = len(self.faults)
        place = _part(name)
        self._try(place, _client_name, name)
        if not isinstance(table, Mapping):
            self._fault(place, "must be a table with the rights of a client")
            return None
        self._unknown(place, table, _CLIENT_KEYS)
        rights = self._rights(f"{place}.rights", table.get("rights"))
        keys = self._each(f"{place}.keys", table.get("keys", []), self._key)
        fingerprints = self._each(
            f"{place}.fingerprints",
            table.get("fingerprints", []),
            lambda at, value: self._only("fingerprint", at, _fingerprint, value),
        )
        names = self._each(
            f"{place}.names", table.get("names", []), lambda at, value: self._only("name", at, _name, value)
        )
        if len(self.faults) > before:
            return None
        return Entry(Client(name, frozenset(rights)), keys, fingerprints, names)

    def _rights(self, place: str, value: object) -> tuple[Right, ...]:
        if not isinstance(value, list) or not value:
            self._fault(place, f"must be an array of at least one of {', '.join(Right)}")
            return ()
        return self._each(place, value, lambda at, each: self._try(at, read_right, each))

    def _key(self, place: str, value: object) -> Key | None:
        if not isinstance(value, Mapping):
            self._fault(place, "must be a table, as `lxdsched key new` makes it")
            return None
        self._unknown(place, value, _KEY_KEYS)
        key_id = self._only("key", f"{place}.id", _key_id, value.get("id"))
        digest = self._try(f"{place}.sha256", _digest, value.get("sha256"))
        created = self._try(f"{place}.created", _time, value.get("created"))
        expires = self._try(f"{place}.expires", _time, value["expires"]) if "expires" in value else None
        if key_id is None or digest is None or created is None:
            return None
        return Key(key_id, digest, created, expires)

    def _each(self, place: str, values: object, read: Callable[[str, object], T | None]) -> tuple[T, ...]:
        if not isinstance(values, list):
            self._fault(place, "must be an array")
            return ()
        found = [read(f"{place}[{number}]", value) for number, value in enumerate(values)]
        return tuple(each for each in found if each is not None)

    def _only(self, kind: str, place: str, read: Callable[[object], str], value: object) -> str | None:
        """Read a credential, which must not be anywhere else: it could be either's."""
        found = self._try(place, read, value)
        if found is not None:
            first = self._places.setdefault((kind, found), place)
            if first != place:
                self._fault(place, f"is the same as {first}")
        return found

    def _unknown(self, place: str, table: Mapping[str, object], known: Sequence[str]) -> None:
        for key in table:
            if key not in known:
                self._fault(f"{place}.{_part(key)}", f"is not known here{meant(key, known)}")

    def _try(self, place: str, read: Callable[[Any], T], value: object) -> T | None:
        try:
            return read(value)
        except ClientsFault as fault:
            self._fault(place, str(fault))
            return None

    def _fault(self, place: str, what: str) -> None:
        self.faults.append(f"{self._where}: {place}: {what}")


def _client_name(name: str) -> str:
    if not is_name(name):
        raise ClientsFault(f"is not a client's name, which is {NAME_GRAMMAR}")
    return name


def _key_id(value: object) -> str:
    if not isinstance(value, str) or not is_id(value):
        raise ClientsFault("must be the id of a key: 8 digits of 0-9 and a-f")
    return value


def _digest(value: object) -> bytes:
    if not isinstance(value, str) or not _SHA256.match(value):
        raise ClientsFault("must be the SHA-256 of a key: 64 hexadecimal digits")
    return bytes.fromhex(value)


def _fingerprint(value: object) -> str:
    try:
        return read_fingerprint(value if isinstance(value, str) else "")
    except IdentityError as error:
        raise ClientsFault(str(error)) from None


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isprintable() or " " in value:
        raise ClientsFault("must be a name in a certificate: a DNS name, an e-mail address or a URI")
    return plain_name(value)


def _time(value: object) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ClientsFault("must be a time with its zone, such as 2027-01-31T00:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ClientsFault("is beyond all times") from None


def _part(key: str) -> str:
    """Return a part of a place as it is written in TOML, without anything that a terminal could stumble over."""
    return key if is_name(key) and "." not in key else _shown(key)


def _shown(word: str) -> str:
    return repr(word if len(word) <= _SHOWN else word[:_SHOWN] + "…")
