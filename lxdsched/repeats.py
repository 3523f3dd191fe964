"""By what a repeated request is known for the same: the client that asks, and the `request_id` that it gives.

So what one client calls its requests is nothing to the others.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import msgspec

_PAIR = "["
"""What a text begins with that is a client and an id."""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A `request_id` as it was sent, and the name of the client whose it is; None without access control."""

    client: str | None
    request_id: str

    def text(self) -> str:
        """Write it: no two are written alike, whatever is in names and ids.

        Without a client it is the id alone, unless that could be taken for a pair.
        """
        if self.client is None and not self.request_id.startswith(_PAIR):
            return self.request_id
        return msgspec.json.encode((self.client, self.request_id)).decode()


def key(client: str | None, request_id: str | None) -> RequestKey | None:
    """Return the key of a request; None where it has no id, and is never taken for another."""
    return None if request_id is None else RequestKey(client, request_id)


def read(text: str) -> RequestKey:
    """Read what `RequestKey.text` has written. What it would not write is an id without a client.

    Replicas of earlier versions write ids as they come.
    """
    if text.startswith(_PAIR):
        with suppress(ValueError, RecursionError):  # msgspec's errors are ValueErrors
            found = RequestKey(*msgspec.json.decode(text, type=tuple[str | None, str]))
            if found.text() == text:
                return found
    return RequestKey(None, text)
