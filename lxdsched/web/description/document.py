"""Puts the description together."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lxdsched import __version__
from lxdsched.web.description import asked, errors, told
from lxdsched.web.description.forms import Schema
from lxdsched.web.description.operations import paths

_ABOUT = """\
Picks the LXD host on which the next instance shall go, and claims the capacity there.

CPU is in cores (with decimals where LXD gave part of one away), memory in bytes, but for `memory` in
`instance_requirements`, which is in MiB. Times are RFC 3339 in UTC.

Every error, on every path, is a JSON object with a sentence for a person in `error` and a code for a program in `code`.
What is true of all paths: one that is not described here is answered with 404 `not_found`, a method that is not
described with 405 `method_not_allowed` and the header `Allow`; `HEAD` is answered where `GET` is.

This describes exactly the version that serves it. Later ones may add keys to answers and codes to errors: a client
should pass over those that it does not know."""

_TAGS = {
    "Scheduling": "Where the next instance shall go.",
    "Reservations": "What answers have claimed, until LXD shows the instance.",
    "Hosts": "How the hosts stand.",
    "Health": "How the daemon stands, and what it can do.",
}

_SECURITY: dict[str, Schema] = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "password": {
        "type": "http",
        "scheme": "basic",
        "description": "An API key as the password; the user's name does not matter.",
    },
    "certificate": {"type": "mutualTLS", "description": "A client certificate that the daemon knows."},
}


def describe(strategies: Sequence[str]) -> bytes:
    """Return the description, as JSON, of a daemon where these strategies may be asked for."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "lxdsched",
                "summary": "Picks the LXD host on which the next instance shall go",
                "description": _ABOUT,
                "version": __version__,
                "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/", "description": "The daemon that serves this."}],
            "tags": [{"name": name, "description": said} for name, said in _TAGS.items()],
            "paths": paths(),
            "components": {
                "schemas": {**asked.schemas(strategies), **told.schemas(), **errors.schemas()},
                "headers": errors.components(),
                "responses": errors.shared(),
                "securitySchemes": _SECURITY,
            },
        }
    )
