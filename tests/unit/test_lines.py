"""What a person sees of a request in the log."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress

from lxdsched.web.lines import aside, whence

NEAR, FAR = UNIXAddress(b"/run/x"), IPv4Address("TCP", "192.0.2.1", 4711)


def test_a_client_on_a_unix_socket_is_nowhere() -> None:
    assert (whence(NEAR), whence(FAR)) == ({}, {"client": "192.0.2.1"})


@pytest.mark.parametrize(
    ("peer", "notes", "said"),
    [
        (FAR, {}, " for 192.0.2.1"),
        (NEAR, {}, ""),
        (FAR, {"caller": "ci", "cpu": 2, "host": "https://node-1:8443"}, " for ci: https://node-1:8443"),
        (FAR, {"code": "unauthenticated", "reason": "who asks?"}, " for 192.0.2.1: who asks?"),
        (
            NEAR,
            {"reason": "no suitable node found", "summary": "0/2 hosts fit"},
            ": no suitable node found, 0/2 hosts fit",
        ),
    ],
)
def test_of_a_request_it_is_said_who_asked_and_what_came_of_it(
    peer: object, notes: dict[str, object], said: str
) -> None:
    assert aside(peer, notes) == said
