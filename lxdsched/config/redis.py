"""The Redis of the configuration. What is wrong with it is said without ever showing what may be a password."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote

from lxdsched.certificates import Register
from lxdsched.config.files import Files
from lxdsched.config.hosts import host_name
from lxdsched.config.pairs import load_pair, read_bundle
from lxdsched.config.values import Fault
from lxdsched.ledger.settings import (
    REDIS_PORT,
    SENTINEL_PORT,
    Account,
    Address,
    RedisSettings,
    RedisTls,
    TcpAddress,
    UnixAddress,
)
from lxdsched.quoting import quoted
from lxdsched.tls import Authority, Identity, SystemAuthority

ADDR_VARIABLE: Final = "REDIS_ADDR"
"""The environment variable of many programs that use Redis: `host:port`, as go-redis has it."""

_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix")
_PORT = re.compile(r"[0-9]{1,5}\Z")
_DATABASE = re.compile(r"[0-9]{1,9}\Z")
_SERVICE = re.compile(r"[A-Za-z0-9._-]+\Z")  # what a Sentinel lets a name be
_MOST_PORT = 65535
_MOST_SOCKET = 107
"""Bytes that Linux lets the path of a Unix socket have (unix(7))."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """What one URL says: where Redis is, and as whom we come."""

    scheme: str
    addresses: tuple[Address, ...]
    account: Account
    service: str | None
    database: int


def parse_url(url: str) -> Place:
    """Read one URL of a Redis. A Fault shows nothing of the URL but the names of query keys."""
    if url.startswith("unix:") and not url.startswith("unix://"):
        url = "unix://" + url.removeprefix("unix:")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise Fault(f"must begin with one of {', '.join(f'{each}://' for each in _SCHEMES)}")
    if "#" in rest:
        raise Fault("has a #, which must be written as %23")
    rest, question, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    if "@" in path or "@" in query:
        raise Fault("has an @ behind the first / or ?: write these as %2F and %3F in a password, and an @ as %40")
    userinfo, _, servers = authority.rpartition("@")
    account = _account(userinfo)
    if scheme == "unix":
        if servers or not path:
            raise Fault("must be unix:///PATH, with an absolute path")
        return Place(scheme, (_socket("/" + path),), account, None, _queried_database(query))
    if question:
        raise Fault("has a query, and only unix:///PATH has one")
    sentinel = scheme.endswith("+sentinel")
    port = SENTINEL_PORT if sentinel else REDIS_PORT
    addresses = tuple(dict.fromkeys(_server(each, number, port) for number, each in enumerate(servers.split(","), 1)))
    service = None
    if sentinel:
        service, _, path = path.partition("/")
        if not _SERVICE.match(service):
            raise Fault("does not name what the Sentinels watch: redis+sentinel://HOST:PORT,.../NAME")
    return Place(scheme, addresses, account, service, _database(path) if path else 0)


def _account(userinfo: str) -> Account:
    user, _, password = userinfo.partition(":")
    return Account(_decoded(user) or None, _decoded(password) or None)


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise Fault("has a %-sign followed by what is not UTF-8") from None


def _server(text: str, number: int, default_port: int) -> TcpAddress:
    what = f"its address number {number}"
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in name or (rest and not rest.startswith(":")):
            raise Fault(f"{what} is not [IPv6]:PORT")
        port = rest[1:] if rest else str(default_port)
    else:
        name, colon, port = text.partition(":")
        port = port if colon else str(default_port)
    if not _PORT.match(port) or not 0 < int(port) <= _MOST_PORT:
        raise Fault(f"{what} has a port that is not between 1 and {_MOST_PORT}")
    try:
        return TcpAddress(host_name(name).strip("[]"), int(port))
    except Fault:
        raise Fault(f"{what} is not HOST:PORT") from None


def _socket(path: str) -> UnixAddress:
    decoded = _decoded(path)
    if "\0" in decoded or len(decoded.encode("utf-8", "surrogateescape")) > _MOST_SOCKET:
        raise Fault(f"has a path that no socket can have: it has more than {_MOST_SOCKET} bytes, or a NUL")
    return UnixAddress(decoded)


def _database(text: str) -> int:
    if not _DATABASE.match(text):
        raise Fault("names a database that is not a whole number")
    return int(text)


def _queried_database(query: str) -> int:
    database = 0
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key != "db":
            raise Fault(f"{quoted(key)} is not known in a query, only db is")
        database = _database(value)
    return database


def has_password(url: object) -> bool:
    """Say whether what is set as `redis_url` has a password in it. What cannot be read may have one if it has an @."""
    if isinstance(url, list):
        return any(map(has_password, url))
    if not isinstance(url, str):
        return False
    try:
        return parse_url(url.strip()).account.password is not None
    except Fault:
        return "@" in url


def parse_addr(text: str) -> TcpAddress:
    """Read a `host:port` as go-redis has it; without a host it is this machine."""
    if "/" in text or "@" in text:
        raise Fault("must be HOST:PORT; a URL belongs into redis_url")
    text = text.strip()
    return _server("localhost" + text if text.startswith(":") else text, 1, REDIS_PORT)


class RedisReader:
    """Reads what the settings say about Redis, keeps every fault, and notes the certificates that are in use.

    `values` are the settings' values, `sources` where each was found; both have the same keys.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        sources: Mapping[str, str],
        files: Files,
        register: Register,
        faults: list[str],
    ) -> None:
        self._files = files
        self._register = register
        self._values = values
        self._sources = sources
        self._faults = faults

    def read(self, addr: str) -> RedisSettings | None:
        """Read them; None without a Redis or after a fault. `addr` is the variable REDIS_ADDR, empty without one."""
        before = len(self._faults)
        place = self._place(addr)
        if place is None and len(self._faults) == before:
            self._unused("redis_ca", "redis_cert", "redis_key", "redis_password_file", why="no Redis is set")
            self._unused("redis_sentinel_username", "redis_sentinel_password_file", why="no Redis is set")
            return None
        tls = self._tls(place)
        account = self._server_account(place)
        sentinel_account = self._sentinel_account(place)
        if place is None or len(self._faults) > before:
            return None
        return RedisSettings(
            addresses=place.addresses,
            service=place.service,
            account=account,
            sentinel_account=sentinel_account,
            database=place.database,
            tls=tls,
            timeout=self._values["redis_timeout"],
            prefix=self._values["redis_prefix"],
        )

    def _place(self, addr: str) -> Place | None:
        url = self._values["redis_url"]
        if url is None:
            if not addr.strip():
                return None
            address = self._try(ADDR_VARIABLE, parse_addr, addr)
            return None if address is None else Place("redis", (address,), Account(), None, 0)
        source = self._sources["redis_url"]
        urls = [url] if isinstance(url, str) else url
        if source.startswith("--") and has_password(url):
            self._faults.append(
                f"{source}: has a password, which everyone on this machine sees in ps: give the URL by the environment "
                "or the configuration file, or its password by redis_password_file"
            )
            return None
        if not isinstance(urls, list) or not urls or not all(isinstance(each, str) for each in urls):
            self._faults.append(f"{source}: is neither a URL nor a list of URLs")
            return None
        places = [self._try(source, parse_url, each.strip()) for each in urls]
        found = [place for place in places if place is not None]
        if len(found) < len(places):
            return None
        if len({replace(place, addresses=()) for place in found}) > 1:
            self._faults.append(f"{source}: its URLs differ in more than the addresses")
            return None
        return replace(found[0], addresses=tuple(dict.fromkeys(each for place in found for each in place.addresses)))

    def _tls(self, place: Place | None) -> RedisTls | None:
        # Where the URL could not be read, it may have been one of these.
        if place is not None and not place.scheme.startswith("rediss"):
            self._unused("redis_ca", "redis_cert", "redis_key", why="the Redis is not reached by rediss://")
            return None
        ca = self._values["redis_ca"]
        trust = SystemAuthority() if ca is None else self._try(self._sources["redis_ca"], self._authority, ca)
        identity = self._identity()
        return None if trust is None else RedisTls(trust, identity)

    def _identity(self) -> Identity | None:
        certificate, key = self._values["redis_cert"], self._values["redis_key"]
        if certificate is None and key is None:
            return None
        for name, value, other in (("redis_cert", certificate, "redis_key"), ("redis_key", key, "redis_cert")):
            if value is None:
                self._faults.append(f"{self._sources[name]}: is missing, and {other} is set")
                return None
        identity = load_pair(
            self._files,
            self._faults,
            certificate=(self._sources["redis_cert"], certificate),
            key=(self._sources["redis_key"], key),
        )
        if identity is not None:
            self._register.note("redis_cert", certificate, [identity.certificate, *identity.chain])
        return identity

    def _server_account(self, place: Place | None) -> Account:
        account = Account() if place is None else place.account
        path = self._values["redis_password_file"]
        if path is not None:
            source = self._sources["redis_password_file"]
            if account.password is not None:
                self._faults.append(f"{source}: the URL of the Redis has a password too, give one")
            account = replace(account, password=self._try(source, self._password, path))
        elif account.username is not None and account.password is None:
            self._faults.append(f"{self._sources['redis_url']}: has a user and no password")
        return account

    def _sentinel_account(self, place: Place | None) -> Account:
        if place is not None and place.service is None:
            self._unused("redis_sentinel_username", "redis_sentinel_password_file", why="there is no Sentinel")
            return Account()
        user, path = self._values["redis_sentinel_username"], self._values["redis_sentinel_password_file"]
        if path is None:
            if user is not None:
                self._faults.append(f"{self._sources['redis_sentinel_username']}: has no redis_sentinel_password_file")
            return Account()
        return Account(user, self._try(self._sources["redis_sentinel_password_file"], self._password, path))

    def _unused(self, *names: str, why: str) -> None:
        self._faults.extend(
            f"{self._sources[name]}: is set, and {why}" for name in names if self._values[name] is not None
        )

    def _try(self, source: str, read: Callable[[str], T], value: str) -> T | None:
        try:
            return read(value)
        except Fault as fault:
            self._faults.append(f"{source}: {fault}")
            return None

    def _authority(self, path: str) -> Authority:
        certificates = read_bundle(path, self._files.read_trusted(path))
        self._register.note("redis_ca", path, certificates)
        return Authority(tuple(certificates))

    def _password(self, path: str) -> str:
        try:
            password = self._files.read_secret(path).decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise Fault(f"{path}: is not UTF-8") from None
        if not password or "\n" in password:
            raise Fault(f"{path}: must hold one line, the password")
        return password
