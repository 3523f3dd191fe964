"""Who can connect to a place, and what is to be said of it where that is more than this machine."""

from __future__ import annotations

import re
from ipaddress import ip_address

_PART = re.compile(r"((?:\\.|[^:\\])*)(?::|\Z)")
_ESCAPED = re.compile(r"\\(.)")
_EVERYWHERE = {"tcp": "0.0.0.0", "tcp6": "::"}  # noqa: S104  # what an endpoint without an interface listens on


def url(host: str, port: int | str, *, secure: bool) -> str:
    """Write where a listener is as a URL."""
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def is_local(host: str) -> bool:
    """Tell whether only this machine can connect to an IP address."""
    return ip_address(host.partition("%")[0]).is_loopback


def open_to_others(endpoint: str, *, secure: bool) -> str | None:
    """Return the URL of a Twisted endpoint to which others than this machine can connect.

    None where only this machine can, and where it shows only once it is listened on, as with the sockets of systemd.
    """
    kind, *parts = (_ESCAPED.sub(r"\1", each) for each in _PART.findall(endpoint))
    if kind not in _EVERYWHERE:
        return None
    given = dict(each.split("=", 1) for each in parts if "=" in each)
    plain = [each for each in parts if each and "=" not in each]
    host = given.get("interface") or _EVERYWHERE[kind]
    try:
        if is_local(host):
            return None
    except ValueError:  # a name, which Twisted takes too
        return None
    return url(host, given.get("port") or (plain[0] if plain else ""), secure=secure)


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
