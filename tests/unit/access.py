"""Clients, keys and clients files for the tests of access control."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lxdsched.access import Clients, ClientsError, read_clients
from lxdsched.access.keys import digest

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
CREATED = "2026-11-26T10:00:00Z"


def token(key_id: str = "3f9a1c02", letter: str = "x") -> str:
    """Make a key that a test can foresee."""
    return f"lxdsched_{key_id}_{letter * 43}"


def row(key: str, expires: str = "") -> str:
    """Write a key as an inline table."""
    ends = f", expires = {expires}" if expires else ""
    return f'{{ id = "{key[9:17]}", sha256 = "{digest(key).hex()}", created = {CREATED}{ends} }}'


def clients(text: str) -> Clients:
    """Read a good clients file."""
    return read_clients(text.encode(), "clients.toml")


def faults(text: str | bytes) -> list[str]:
    """Read a faulty clients file."""
    with pytest.raises(ClientsError) as caught:
        read_clients(text if isinstance(text, bytes) else text.encode(), "clients.toml")
    return caught.value.faults
