"""The form of a key: `lxdsched_<id>_<secret>`.

The id is public: it finds the key in the clients file, and a leaked key in whatever it leaked into. Only the SHA-256 of
the whole key is kept. No slower hash is needed, for a secret of 256 random bits cannot be guessed.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from lxdsched.access.values import Stranger

PREFIX = "lxdsched_"
_ID_BYTES = 4
_SECRET_BYTES = 32
_SECRET_LENGTH = 43
"""Characters of the secret in base64url, without padding."""
_LENGTH = len(PREFIX) + 2 * _ID_BYTES + 1 + _SECRET_LENGTH

# [0-9] and not \d, which also matches the digits of other scripts; \Z and not $, which lets a newline follow.
_KEY = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * _ID_BYTES}}})_[A-Za-z0-9_-]{{{_SECRET_LENGTH}}}\Z")
_ID = re.compile(rf"[0-9a-f]{{{2 * _ID_BYTES}}}\Z")


def new_id() -> str:
    """Make an id of a key. With four billion of them two may be the same one day: whoever adds a key looks."""
    return secrets.token_hex(_ID_BYTES)


def is_id(text: str) -> bool:
    """Tell whether this has the form of a key's id."""
    return _ID.match(text) is not None


def new_key(key_id: str) -> str:
    """Make a key of this id."""
    return f"{PREFIX}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def key_id(key: str) -> str:
    """Return the id of a key, whatever text it is. Stranger when it has not the form of one."""
    match = _KEY.match(key) if len(key) == _LENGTH else None
    if match is None:
        raise Stranger("what was sent as a key does not have the form of one, lxdsched_<id>_<secret>")
    return match[1]


def digest(key: str) -> bytes:
    """Return what is kept of a key: its SHA-256."""
    return hashlib.sha256(key.encode()).digest()
