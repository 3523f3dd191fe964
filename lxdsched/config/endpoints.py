"""Reads Twisted's descriptions of where to listen."""

from __future__ import annotations

import re
from typing import Any, cast

from twisted.internet.endpoints import serverFromString

from lxdsched.config.values import Fault, text

_MODE = re.compile(r":mode=")
_PRIVATE = ":mode=660"
"""What is added to a Unix socket without a mode: Twisted would let everybody in."""


def endpoint(value: object) -> str:
    """Read a Twisted endpoint to listen on, such as `tcp:8080:interface=127.0.0.1`."""
    description = text(value).strip()
    kind = description.partition(":")[0]
    if kind == "ssl":
        raise Fault("is an ssl: endpoint: use a tcp: one, and set tls_cert and tls_key")
    if description in ("unix", "unix:"):
        raise Fault(f"is {description!r}, without the path of the socket")
    if kind == "unix" and not _MODE.search(description):
        description += _PRIVATE
    if kind == "systemd":
        return description  # whether there are such sockets shows only where systemd starts us
    try:
        serverFromString(cast(Any, None), description)
    except Exception as error:  # whatever a kind of endpoint makes of its parameters
        raise Fault(f"is {description!r}, not an endpoint such as tcp:8080:interface=127.0.0.1 ({error})") from None
    return description
