"""The clients file, and how every fault in it is found."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.access import Clients, ClientsError, Right, read_clients
from lxdsched.access.keys import digest
from lxdsched.access.values import Client, Entry, Key
from tests.unit.access import CREATED, clients, faults, row, token

PRINT = "AB:" * 31 + "AB"
SHA = "0" * 64


def test_a_client_has_rights_keys_fingerprints_and_names() -> None:
    key = token()
    found = clients(
        f"""
        [shoes-1]
        rights = ["schedule", "read"]
        keys = [{row(key, "2027-11-26T11:00:00+01:00")}]
        fingerprints = ["{PRINT}"]
        names = ["Shoes-1.Example.com", "Joe@Example.com", "spiffe://Example.com/Joe"]

        ["joe@example.com"]
        rights = ["admin"]
        """
    )
    created, expires = datetime(2026, 11, 26, 10, tzinfo=UTC), datetime(2027, 11, 26, 10, tzinfo=UTC)
    assert found.entries == (
        Entry(
            Client("shoes-1", frozenset({Right.SCHEDULE, Right.READ})),
            (Key("3f9a1c02", digest(key), created, expires),),
            ("ab" * 32,),
            ("shoes-1.example.com", "Joe@example.com", "spiffe://Example.com/Joe"),
        ),
        Entry(Client("joe@example.com", frozenset({Right.ADMIN}))),
    )


def test_a_file_without_clients_is_good() -> None:
    assert clients("# nobody yet\n").entries == ()


def test_keys_may_be_tables_of_their_own() -> None:
    found = clients(f'[a]\nrights = ["read"]\n[[a.keys]]\nid = "00000001"\nsha256 = "{SHA}"\ncreated = {CREATED}\n')
    assert found.entries[0].keys[0].id == "00000001"


def test_every_fault_is_found_at_once_and_names_its_place() -> None:
    found = faults(
        f"""
        top = 1
        [shoes-1]
        right = ["schedule"]
        keys = [7, {{ id = "3F9A1C02", sha256 = "{SHA}0", create = 1 }}, {{}}]
        fingerprints = ["abc", 1]
        names = "shoes-1"
        [b]
        rights = ["shedule", 3]
        keys = [{{ id = "00000001", sha256 = "{SHA}", created = 2026-11-26T10:00:00, expires = 2026-11-26 }}]
        names = ["", "a b", "a\\u0000", 1]
        ["a b\\u001b"]
        rights = []
        [c]
        """
    )
    assert found == [
        f"clients.toml: {fault}"
        for fault in [
            "top: must be a table with the rights of a client",
            "shoes-1.right: is not known here, did you mean rights?",
            "shoes-1.rights: must be an array of at least one of schedule, read, admin",
            "shoes-1.keys[0]: must be a table, as `lxdsched key new` makes it",
            "shoes-1.keys[1].create: is not known here, did you mean created?",
            "shoes-1.keys[1].id: must be the id of a key: 8 digits of 0-9 and a-f",
            "shoes-1.keys[1].sha256: must be the SHA-256 of a key: 64 hexadecimal digits",
            "shoes-1.keys[1].created: must be a time with its zone, such as 2027-01-31T00:00:00Z",
            "shoes-1.keys[2].id: must be the id of a key: 8 digits of 0-9 and a-f",
            "shoes-1.keys[2].sha256: must be the SHA-256 of a key: 64 hexadecimal digits",
            "shoes-1.keys[2].created: must be a time with its zone, such as 2027-01-31T00:00:00Z",
            "shoes-1.fingerprints[0]: is not a SHA-256 fingerprint: 64 hexadecimal digits, colons allowed",
            "shoes-1.fingerprints[1]: is not a SHA-256 fingerprint: 64 hexadecimal digits, colons allowed",
            "shoes-1.names: must be an array",
            "b.rights[0]: is 'shedule', not one of schedule, read, admin, did you mean schedule?",
            "b.rights[1]: must be one of schedule, read, admin",
            "b.keys[0].created: must be a time with its zone, such as 2027-01-31T00:00:00Z",
            "b.keys[0].expires: must be a time with its zone, such as 2027-01-31T00:00:00Z",
            *[
                f"b.names[{number}]: must be a name in a certificate: a DNS name, an e-mail address or a URI"
                for number in range(4)
            ],
            "'a b\\x1b': is not a client's name, which is 1 to 64 of A-Z, a-z, 0-9 and . _ @ -",
            "'a b\\x1b'.rights: must be an array of at least one of schedule, read, admin",
            "c.rights: must be an array of at least one of schedule, read, admin",
        ]
    ]


def test_a_credential_belongs_to_one_client() -> None:
    found = faults(
        f"""
        [a]
        rights = ["read"]
        keys = [{row(token())}, {row(token("00000001"))}]
        fingerprints = ["{PRINT}"]
        names = ["a.example.com", "urn:a"]
        [b]
        rights = ["read"]
        keys = [{row(token(letter="y"))}]
        fingerprints = ["{PRINT.replace(":", "").lower()}"]
        names = ["A.Example.COM", "urn:A"]
        """
    )
    assert found == [
        "clients.toml: b.keys[0].id: is the same as a.keys[0].id",
        "clients.toml: b.fingerprints[0]: is the same as a.fingerprints[0]",
        "clients.toml: b.names[0]: is the same as a.names[0]",
    ]


@pytest.mark.parametrize("name", ["a", "A.b_c@d-e", "9" * 64])
def test_a_name_that_a_client_may_have(name: str) -> None:
    assert clients(f'["{name}"]\nrights = ["read"]').entries[0].client.name == name


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "a/b", "a:b", "ä", "a\\n", "٣"])
def test_a_name_that_no_client_may_have(name: str) -> None:
    (fault,) = faults(f'["{name}"]\nrights = ["read"]')
    assert "is not a client's name" in fault
    assert len(fault) < 200


def test_a_secret_in_the_wrong_place_is_not_shown() -> None:
    secret = token()
    found = faults(
        f"""
        [a]
        rights = ["read"]
        keys = ["{secret}", {{ id = "{secret}", sha256 = "{secret}", created = "{secret}", expires = "{secret}" }}]
        fingerprints = ["{secret}"]
        """
    )
    assert len(found) == 6
    assert "xxx" not in "".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "a = ",
        "[a]\n[a]",
        b"\xff",
        "\0",
        "a = " + "1" * 5000,
        "a = 0x" + "f" * 50_000,
        "a = " + "[" * 5000,
        "a" + ".b" * 5000 + " = 1",
        "[a]\nrights = 0x" + "f" * 50_000,
        '[a]\nrights = ["' + "schedule" * 50_000 + '"]',
        "[" + "a" * 100_000 + "]\nrights = []",
        '[a]\nrights = ["read"]\nkeys' + ".b" * 5000 + " = 1",
        f'[a]\nrights = ["read"]\nkeys = [{{id = "00000001", sha256 = "{SHA}", created = 0001-01-01T00:00:00+23:00}}]',
        f'[a]\nrights = ["read"]\nkeys = [{{id = "00000001", sha256 = "{SHA}", created = 9999-12-31T23:00:00-23:00}}]',
    ],
    ids=range(14),
)
def test_a_file_beyond_reason_is_a_fault(text: str | bytes) -> None:
    found = faults(text)
    assert all(fault.startswith("clients.toml: ") and len(fault) < 300 for fault in found)


WORDS = [
    "rights",
    "keys",
    "fingerprints",
    "names",
    "id",
    "sha256",
    "created",
    "expires",
    "read",
    "admin",
    "a",
    "b",
    SHA,
]
words = st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8"), max_size=5)
times = st.datetimes() | st.datetimes(timezones=st.just(UTC))
scalars = words | st.integers() | st.floats() | st.booleans() | times | st.dates() | st.times()
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4), max_leaves=20
)
GOOD = {
    "a": {
        "rights": ["read"],
        "keys": [{"id": "00000001", "sha256": SHA, "created": datetime(2026, 1, 1, tzinfo=UTC)}],
        "fingerprints": [SHA],
        "names": ["a.example.com"],
    }
}


def toml(value: object) -> str:
    """Write a value as TOML, in one line: the library's own writer will not have all of these."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@st.composite
def bent(draw: st.DrawFn) -> dict[str, Any]:
    """A good file in which one place holds something else."""
    at: Any = tomllib.loads("\n".join(f"{key} = {toml(value)}" for key, value in GOOD.items()))
    whole = at
    while True:
        place = draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[place], dict | list) or not at[place] or draw(st.booleans()):
            at[place] = draw(values)
            return whole  # type: ignore[no-any-return]
        at = at[place]


@given(st.dictionaries(words, values, max_size=4) | bent())
def test_any_toml_is_clients_or_faults(tables: dict[str, Any]) -> None:
    text = "\n".join(f"{_text(key)} = {toml(value)}" for key, value in tables.items())
    tomllib.loads(text)
    try:
        found = read_clients(text.encode(), "clients.toml")
    except ClientsError as error:
        assert error.faults
        assert all(fault.startswith("clients.toml: ") for fault in error.faults)
    else:
        assert isinstance(found, Clients)
        assert {entry.client.name for entry in found.entries} == tables.keys()


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_are_clients_or_faults(content: bytes) -> None:
    try:
        read_clients(content, "clients.toml")
    except ClientsError as error:
        assert error.faults


@pytest.mark.parametrize("part", ["a.", '"a".', "'a' . "])
def test_a_name_of_thousands_of_parts_is_not_even_tried(part: str) -> None:
    with pytest.raises(ClientsError) as caught:
        read_clients(f"[{part * 10_000}a]\n".encode(), "clients.toml")
    assert caught.value.faults == ["clients.toml: not a TOML file: a key of more than 100 parts (at line 1)"]
