"""How keys are put into the text of a clients file and taken out again, and all else stays."""

from __future__ import annotations

import pytest

from lxdsched.access import Client, Right
from lxdsched.access.keys import digest
from lxdsched.access.layout import HEADER, with_key, without_keys
from lxdsched.access.values import Entry, Key
from tests.unit.access import CREATED, NOW, clients, row, token

NEW = Key("0000000f", digest("new"), NOW, NOW)
READER = Client("shoes-1", frozenset({Right.READ}))

TABLE = f"""\
# Ours. # Ünïcode
[shoes-1] # the first
rights = [ 'read', ] # it looks
keys = [ # old ones
  # of Joe
  {row(token("00000001"))}, # first
  {row(token("00000002"), CREATED)} # second
] # end

# about x
[x]
rights=["read"] # r
# the end"""
ONE_LINE = f'shoes-1 = {{ rights = ["read"], keys = [{row(token("00000001"))}, {row(token("00000002"))}] }} # a\n# b\n'
DOTTED = f"""\
shoes-1.rights = ["read"]
x.rights = ["admin"] # x
shoes-1.keys = [{row(token("00000001"))},
# two
{row(token("00000002"))},
]
"""
TABLES = f"""\
[x]
rights = ["read"]
[[shoes-1.keys]] # one
id = "00000001" # its id
sha256 = "{"0" * 64}"
created = {CREATED}
[[shoes-1.keys]]
id = "00000002"
sha256 = "{"1" * 64}"
created = {CREATED}
# about the rights
[shoes-1]
rights = ["read"]
"""
BARE = """\
[shoes-1]
rights = ["read"] # it looks

# about x
[x]
rights = ["read"]
"""
EMPTY = '[shoes-1]\nkeys = [] # none\nrights = ["read"]\n'
WINDOWS = TABLE.replace("\n", "\r\n")
ALL = {
    name.lower(): value
    for name, value in list(globals().items())
    if name in {"TABLE", "ONE_LINE", "DOTTED", "TABLES", "BARE", "EMPTY", "WINDOWS"}
}


def by_name(text: str) -> dict[str, Entry]:
    return {entry.client.name: entry for entry in clients(text).entries}


def comments(text: str) -> list[str]:
    return [line.partition("#")[2].strip() for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_a_key_is_added_and_all_else_stays(text: str) -> None:
    changed = with_key(text, READER, NEW)
    before, after = by_name(text), by_name(changed)
    assert after["shoes-1"].keys == (*before["shoes-1"].keys, NEW)
    assert after == before | {"shoes-1": after["shoes-1"]}
    assert comments(changed) == comments(text)
    lines = set(changed.splitlines())
    if text not in {ONE_LINE, EMPTY}:
        gone = [line for line in text.splitlines() if line not in lines and line.rstrip(",") + "," not in lines]
        # A comma is all that the last key gets.
        assert [line for line in gone if "00000002" not in line] == []


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_a_key_is_taken_out_and_all_else_stays(text: str) -> None:
    before = by_name(text)
    for gone in ({"00000001"}, {"00000002"}, {"00000001", "00000002"}):
        changed = without_keys(text, gone)
        after = by_name(changed)
        assert after["shoes-1"].keys == tuple(key for key in before["shoes-1"].keys if key.id not in gone)
        assert after["x"] == before["x"] if "x" in before else len(after) == 1
        assert set(comments(changed)) <= set(comments(text))
        assert {"about x", "about the rights"} & set(comments(text)) <= set(comments(changed))


@pytest.mark.parametrize("text", ["", HEADER, *ALL.values()], ids=["nothing", "header", *ALL])
@pytest.mark.parametrize("name", ["a", "joe@example.com", "a.b", "1"])
def test_a_client_is_added_at_the_end(text: str, name: str) -> None:
    client = Client(name, frozenset({Right.READ, Right.SCHEDULE}))
    changed = with_key(text, client, NEW)
    assert list(by_name(changed).values()) == [*by_name(text).values(), Entry(client, (NEW,))]
    assert changed.startswith(text.rstrip())
    assert changed.endswith("\n")
    again = with_key(changed, Client("b", client.rights), Key("0000000e", NEW.digest, NOW))
    assert changed in again


def test_a_new_file_reads_as_a_person_would_write_it() -> None:
    assert with_key(with_key("", READER, NEW), READER, Key("0000000e", NEW.digest, NOW)) == (
        f"""{HEADER}
[shoes-1]
rights = ["read"]
keys = [
    {{id = "0000000f", sha256 = "{NEW.digest.hex()}", created = 2026-11-26T12:00:00Z, expires = 2026-11-26T12:00:00Z}},
    {{id = "0000000e", sha256 = "{NEW.digest.hex()}", created = 2026-11-26T12:00:00Z}},
]
"""
    )


def test_keys_of_a_client_without_any_come_before_what_is_said_of_the_next() -> None:
    changed = with_key(BARE, READER, NEW)
    assert changed.index("keys =") < changed.index("# about x")
