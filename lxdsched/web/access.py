"""Who asks, and may they?

A client is known by its key, sent as `Authorization: Bearer KEY`, or as the password of `Basic` by those that know no
header and have it in their URL, or by the certificate of its connection. It is looked up anew for each request, so that
a key that was revoked is worth nothing from then on, on old connections too.

Beside that, what a web browser sends on behalf of a foreign page is refused: it may come from a browser that runs where
we can be reached and its page's author cannot.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import urlsplit

from lxdsched.access import Client, Clients, Right, Shown, Stranger
from lxdsched.web.errors import ApiError

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="lxdsched", Basic realm="lxdsched", charset="UTF-8"'}
_HARMLESS = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class Asking(Protocol):
    """What is looked at of a request."""

    method: bytes
    path: bytes

    def headers(self, name: bytes) -> list[bytes]:
        """Return all values of a header."""

    def certificate(self) -> Shown | None:
        """Return the certificate of its connection."""


class Gate:
    """Lets requests through. `clients` may be replaced; without any, everybody may do everything.

    `wall` tells the time of day in seconds; `unguarded` are paths that everybody may ask for.
    """

    def __init__(self, clients: Clients | None, wall: Callable[[], float], unguarded: frozenset[bytes]) -> None:
        self.clients = clients
        self._wall = wall
        self._unguarded = unguarded

    def client(self, request: Asking) -> Client | None:
        """Say who asks; None where it does not matter. ApiError when nobody who is known does."""
        _refuse_foreign_pages(request)
        if self.clients is None or request.path in self._unguarded:
            return None
        now = datetime.fromtimestamp(self._wall(), UTC)
        try:
            if given := request.headers(b"authorization"):
                return self.clients.by_key(_key(given), now)
            if (shown := request.certificate()) is not None:
                return self.clients.by_certificate(shown, now)
            raise Stranger("who asks? Send a key as `Authorization: Bearer KEY`")
        except Stranger as why:
            raise ApiError(401, "unauthenticated", str(why), headers=_CHALLENGE) from None


def require(client: Client | None, right: Right) -> None:
    """Refuse a client without a right; None has all."""
    if client is not None and not client.may(right):
        raise ApiError(403, "forbidden", f"{client.name} has not the right {right.value!r}")


def _key(given: list[bytes]) -> str:
    """Find the key in the headers. Stranger when there is none, or more than one."""
    if len(given) > 1:
        raise Stranger("there is more than one Authorization header")
    scheme, _, rest = given[0].strip().partition(b" ")
    try:
        if scheme.lower() == b"bearer":
            return rest.strip().decode()
        if scheme.lower() == b"basic":
            return b64decode(rest.strip(), validate=True).decode().partition(":")[2]
    except (NotBase64, ValueError):  # a UnicodeDecodeError is one
        pass
    raise Stranger("the Authorization header is neither `Bearer KEY` nor `Basic` with the key as the password")


def _refuse_foreign_pages(request: Asking) -> None:
    if request.method in _HARMLESS:
        return
    site = request.headers(b"sec-fetch-site")
    origin = request.headers(b"origin")
    host = request.headers(b"host")
    if site in ([b"cross-site"], [b"same-site"]) or (origin and not _same(origin, host)):
        raise ApiError(403, "forbidden", "a page of another origin asks, and none may")


def _same(origin: list[bytes], host: list[bytes]) -> bool:
    try:
        return [urlsplit(each).netloc.lower() for each in origin] == [each.lower() for each in host]
    except ValueError:
        return False
