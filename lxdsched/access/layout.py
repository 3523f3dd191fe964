"""Changes the text of a clients file, and nothing in it that was not to be changed: comments and order stay.

A client may be written in all the ways that TOML has for a table, and its keys in those for an array of tables.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import tomlkit
from tomlkit.container import OutOfOrderTableProxy
from tomlkit.items import AoT, InlineTable

from lxdsched.access.values import Client, Key, Right

HEADER = "# The clients of lxdsched, and what each may do. `lxdsched key` makes and revokes keys.\n"
"""What a new clients file begins with."""


def with_key(text: str, client: Client, key: Key) -> str:
    """Add a key, and the client where there is none. The text must be that of a good clients file, or empty."""
    document = tomlkit.parse(text or HEADER)
    if client.name not in document:
        document.add(tomlkit.key(client.name), _client(client, separate=bool(document.body)))
    table: Any = document[client.name]
    if "keys" not in table:
        _add(table, "keys", tomlkit.array().multiline(not isinstance(table, InlineTable)))
    keys: Any = table["keys"]
    keys.append(_key(key, tomlkit.table() if isinstance(keys, AoT) else tomlkit.inline_table()))
    return tomlkit.dumps(document)


def without_keys(text: str, ids: Collection[str]) -> str:
    """Take the keys of these ids away. The text must be that of a good clients file."""
    document = tomlkit.parse(text)
    for name in document:
        table: Any = document[name]
        keys = table.get("keys", ())
        for number in reversed(range(len(keys))):
            if keys[number]["id"] in ids:
                _remove(document, name, keys, number)
    return tomlkit.dumps(document)


def _client(client: Client, *, separate: bool) -> Any:
    table = tomlkit.table()
    rights = tomlkit.array()
    rights.extend(right.value for right in Right if right in client.rights)
    table.add("rights", rights)
    if separate:
        table.trivia.indent = "\n"
    return table


def _add(table: Any, name: str, item: Any) -> None:
    tail = _take_tail(table)
    table.add(name, item)
    table.value.body.extend(tail)


def _remove(document: tomlkit.TOMLDocument, name: str, keys: Any, number: int) -> None:
    if not isinstance(keys, AoT):
        del keys[number]
        return
    tail = _take_tail(keys[number])
    del keys[number]
    if number:
        keys[number - 1].value.body.extend(tail)
    elif keys:
        keys[0].trivia.indent = "".join(item.as_string() for _, item in tail) + keys[0].trivia.indent
    else:
        table: Any = document[name]
        del table["keys"]
        (document if isinstance(table, OutOfOrderTableProxy) else table.value).body.extend(tail)


def _take_tail(table: Any) -> list[Any]:
    """Take comments and empty lines from the end of a table: they are mostly about what comes next."""
    body, tail = table.value.body, []
    while body and body[-1][0] is None:
        tail.append(body.pop())
    return tail[::-1]


def _key(key: Key, table: Any) -> Any:
    table["id"] = key.id
    table["sha256"] = key.digest.hex()
    table["created"] = _time(key.created)
    if key.expires is not None:
        table["expires"] = _time(key.expires)
    return table


def _time(time: datetime) -> Any:
    return tomlkit.datetime(time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z")
