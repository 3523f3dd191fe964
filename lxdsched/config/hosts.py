"""The hosts of the configuration, with their addresses, certificates and keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any, TypeVar
from urllib.parse import urlsplit

from lxdsched.certificates import Register
from lxdsched.config.files import Files
from lxdsched.config.pairs import load_pair, read_bundle
from lxdsched.config.values import Fault, integer, size
from lxdsched.fleet.settings import HTTPS_PORT, HostSettings
from lxdsched.quoting import MOST_QUOTED, cut, quoted
from lxdsched.tls import Authority, Identity, IdentityError, Pinned, Trust, fingerprint, read_fingerprint

LXD_PORT = 8443
"""Where LXD listens unless told otherwise."""

_KEYS = frozenset(
    {
        "host",
        "client_cert",
        "client_key",
        "server_cert",
        "fingerprint",
        "ca",
        "over_commit_percent",
        "reserve_memory",
        "labels",
    }
)

# Underscores are no letters of host names, and yet people have them in their names.
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?\Z")

_MOST_NAME = 255
"""Characters of the longest name in DNS."""

T = TypeVar("T")
Complain = Callable[[str], None]


@dataclass(slots=True)
class Defaults:
    """What a host that does not say its own takes over. The paths may be None; `sources` say where they are set."""

    sources: Mapping[str, str]
    client_cert: str | None
    client_key: str | None
    over_commit_percent: int
    reserve_memory: int


@dataclass(slots=True)
class HostReader:
    """Reads host entries, keeps every fault, and notes the certificates that are in use."""

    defaults: Defaults
    files: Files
    register: Register
    faults: list[str] = field(default_factory=list)
    _identities: dict[tuple[str, str], Identity | None] = field(default_factory=dict)

    def read(self, source: str, entries: object) -> tuple[HostSettings, ...]:
        """Read all entries. `source` names where they come from in the faults."""
        if not isinstance(entries, Sequence) or isinstance(entries, str | bytes):
            self.faults.append(f"{source}: must be an array of hosts")
            return ()
        if not entries:
            self.faults.append(f"{source}: names no host")
        hosts = [self._entry(f"{source}[{number}]", entry) for number, entry in enumerate(entries)]
        found = [host for host in hosts if host is not None]
        self._refuse_twins(source, found)
        return tuple(found)

    def _refuse_twins(self, source: str, hosts: Sequence[HostSettings]) -> None:
        seen: dict[str, str] = {}
        for host in hosts:
            if host.url in seen:
                one, other = quoted(host.host), quoted(seen[host.url])
                self.faults.append(f"{source}: {one} is the same host as {other}, named twice")
            seen[host.url] = host.host

    def _entry(self, where: str, entry: object) -> HostSettings | None:
        if isinstance(entry, str):
            entry = {"host": entry}
        if not isinstance(entry, Mapping):
            self.faults.append(f"{where}: must be an object or a URL")
            return None
        before = len(self.faults)
        for key in entry.keys() - _KEYS:
            known = ", ".join(sorted(_KEYS))
            self.faults.append(f"{where}.{cut(key, MOST_QUOTED)}: is not a setting of a host; these are: {known}")
        host = entry.get("host")
        if not isinstance(host, str) or not host:
            self.faults.append(f"{where}.host: must be the host's URL")
            return None
        url = self._value(f"{where}.host", address, host)
        identity = self._identity(where, host, entry)
        trust = self._trust(where, host, entry)
        percent = self._value(
            f"{where}.over_commit_percent",
            integer(1, 10_000),
            entry.get("over_commit_percent", self.defaults.over_commit_percent),
        )
        reserve = self._value(
            f"{where}.reserve_memory", size, entry.get("reserve_memory", self.defaults.reserve_memory)
        )
        labels = self._value(f"{where}.labels", _labels, entry.get("labels", {}))
        if len(self.faults) > before or identity is None:
            return None
        return HostSettings(host, str(url), identity, trust, int(str(percent)), int(str(reserve)), labels or {})

    def _value(self, where: str, read: Callable[[Any], T], value: object) -> T | None:
        try:
            return read(value)
        except Fault as fault:
            self.faults.append(f"{where}: {fault}")
            return None

    def _identity(self, where: str, host: str, entry: Mapping[str, object]) -> Identity | None:
        paths, places = [], []
        for key, default in (("client_cert", self.defaults.client_cert), ("client_key", self.defaults.client_key)):
            path = entry.get(key, default)
            if not isinstance(path, str) or not path:
                self.faults.append(f"{where}.{key}: is missing, and no default {key} is set")
            else:
                paths.append(path)
                places.append(f"{where}.{key}" if key in entry else self.defaults.sources[key])
        if len(paths) < 2:  # noqa: PLR2004
            return None
        (certificate_path, key_path), (certificate_place, key_place) = paths, places
        if (certificate_path, key_path) not in self._identities:
            self._identities[certificate_path, key_path] = load_pair(
                self.files,
                self.faults,
                certificate=(certificate_place, certificate_path),
                key=(key_place, key_path),
            )
        identity = self._identities[certificate_path, key_path]
        if identity is not None:
            self.register.note("client_cert", certificate_path, [identity.certificate, *identity.chain], host)
        return identity

    def _trust(self, where: str, host: str, entry: Mapping[str, object]) -> Trust | None:
        ways = [key for key in ("server_cert", "fingerprint", "ca") if key in entry]
        if len(ways) > 1:
            self.faults.append(f"{where}: {' and '.join(ways)} exclude each other, give one")
        if not ways:
            return None
        key, value = ways[0], entry[ways[0]]
        if not isinstance(value, str) or not value:
            self.faults.append(f"{where}.{key}: must be a text")
            return None
        try:
            if key == "fingerprint":
                return Pinned(frozenset({read_fingerprint(value)}))
            certificates = read_bundle(value, self.files.read_trusted(value))
        except IdentityError as error:
            self.faults.append(f"{where}.{key}: {cut(value, MOST_QUOTED)} {error}")
            return None
        except Fault as fault:
            self.faults.append(f"{where}.{key}: {fault}")
            return None
        if key == "server_cert":
            return Pinned(frozenset({fingerprint(certificates[0])}))
        self.register.note("ca", value, certificates, host)
        return Authority(tuple(certificates))


def address(host: str) -> str:
    """Turn a configured host into the URL of its API.

    `node-1` and `192.0.2.1:9443` are short for `https://node-1:8443` and `https://192.0.2.1:9443`.
    """
    said = "its URL" if "@" in host else quoted(host)  # what is before an @ may be a password
    try:
        parts = urlsplit(host if "://" in host else f"//{host}", scheme="https")
        port = parts.port
    except ValueError as error:
        why = "" if "@" in host else f": {cut(str(error), MOST_QUOTED)}"
        raise Fault(f"{said} is not a URL{why}") from None
    if parts.scheme != "https":
        raise Fault(f"{said}: LXD is reached over https only")
    name = parts.hostname or ""
    if not name or parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise Fault(f"{said} must be a host and a port alone, such as https://192.0.2.1:8443")
    if port == 0:
        raise Fault(f"{said}: there is no port 0")
    if port is None:
        port = HTTPS_PORT if "://" in host else LXD_PORT
    try:
        return f"https://{host_name(name)}:{port}"
    except Fault as fault:
        raise Fault(f"{said} holds {fault}") from None


def host_name(name: str) -> str:
    """Return the name of a host as it is looked up: in ASCII, or an IPv6 address in brackets."""
    if len(name) > _MOST_NAME:
        raise Fault("a name that no host can have")
    try:
        if ":" in name and "%" not in name:
            return f"[{IPv6Address(name)}]"
        name = name.encode("idna").decode()
    except ValueError as error:  # UnicodeError is one
        raise Fault(f"a name that no host can have ({cut(str(error), MOST_QUOTED)})") from None
    if not _NAME.match(name):
        raise Fault("a name that no host can have")
    return name


def _labels(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(text, str) for key, text in value.items()
    ):
        raise Fault("must be an object of texts")
    return dict(value)
