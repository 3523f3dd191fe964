"""Names of single requests, by which a client's log and ours can be read side by side."""

from __future__ import annotations

import re
from secrets import token_hex

HEADER = "X-Request-Id"
MOST = 128
"""Characters of a name that a client may give."""

_GIVEN = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,%d}\Z" % MOST)


def new_id() -> str:
    """Make a name for a request that came without one."""
    return token_hex(8)


def request_id(given: bytes | None) -> str:
    """Take the name that a client gave its request if it can stand in a log, else make one."""
    return given.decode() if given is not None and _GIVEN.match(given) else new_id()
