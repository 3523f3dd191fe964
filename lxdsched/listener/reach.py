"""Who can connect to a place and how this machine does, and what is to be said of it where others can."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, cast

from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, UNIXServerEndpoint, serverFromString
from twisted.internet.protocol import Factory

_EVERYWHERE = "0.0.0.0"  # noqa: S104  # what no interface means to the system
_LOOPBACK = {_EVERYWHERE: "127.0.0.1", "::": "::1"}


def url(host: str, port: int | str, *, secure: bool) -> str:
    """Write where a listener is as a URL."""
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def is_local(host: str) -> bool:
    """Tell whether only this machine can connect to an IP address."""
    address = ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def open_to_others(endpoint: str, *, secure: bool) -> str | None:
    """Return the URL of a Twisted endpoint to which others than this machine can connect.

    None where only this machine can, and where it shows only once it is listened on, as with the sockets of systemd.
    """
    place = _placed(endpoint)
    if place is None or place.path:
        return None
    try:
        if is_local(place.host):
            return None
    except ValueError:  # a name, which Twisted takes too
        return None
    return url(place.host, place.port, secure=secure)


def from_here(endpoint: str) -> tuple[str, int] | str | None:
    """Return where this machine connects to a Twisted endpoint: an address and a port, or the path of a Unix socket.

    None where it shows only once it is listened on, as with port 0 and with the sockets of systemd.
    """
    place = _placed(endpoint)
    if place is None:
        return None
    if place.path:
        return place.path
    return (_LOOPBACK.get(place.host, place.host), place.port) if place.port else None


def _placed(endpoint: str) -> _Place | None:
    place = _Place()
    try:
        listener = serverFromString(cast(Any, place), endpoint)
    except Exception:  # whatever a kind of endpoint makes of its parameters, or of what is not there yet
        return None
    if not isinstance(listener, TCP4ServerEndpoint | TCP6ServerEndpoint | UNIXServerEndpoint):
        return None
    cast(Any, listener).listen(Factory())
    return place


class _Place:
    """Takes note of where an endpoint would listen, in the place of a reactor that does it."""

    host = ""
    port = 0
    path = ""

    def listenTCP(self, port: int, factory: object, backlog: int, interface: str) -> None:  # noqa: ARG002, N802
        """Take note of a place. Numbers in another form than is usual, such as 127.1, are written as is usual."""
        self.host, self.port = interface or _EVERYWHERE, port
        with suppress(OSError):
            self.host = socket.inet_ntoa(socket.inet_aton(self.host))

    def listenUNIX(self, address: str, factory: object, backlog: int, mode: int, wantPID: bool) -> None:  # noqa: ARG002, N802, N803
        """Take note of the path of a socket."""
        self.path = address


def exposure(where: str, *, guarded: bool, secure: bool) -> str | None:
    """Say what is wrong with a listener that others reach, `guarded` by access control or not, with TLS or without."""
    if not guarded:
        return (
            f"there is no access control: whoever reaches {where} may schedule and see the fleet; "
            "set clients_file, or listen on a loopback address"
        )
    if not secure:
        return f"keys cross the network unencrypted to {where}: set tls_cert and tls_key"
    return None
