"""What hostile clients do: kinds of them, each as what it sends and when.

Half-open ones connect and say nothing, or stop within the TLS handshake. Slow ones send a byte now and then, or do not
read what they asked for. Flooding ones ask as fast as they are answered, or connect as fast as they can.
"""

from __future__ import annotations

import json
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass

GROUPS = ("half-open", "slow", "flooding")


@dataclass(frozen=True)
class Kind:
    """A kind of hostile client, of one of the GROUPS.

    It sends `opening`, which holds `asks` whole requests, once it is connected, and again after `asks` answers where it
    `repeats`; else a piece of `drip` every second. Where it `leaves` it connects anew for that. One that does not
    `read` lets its answers pile up; a `raw` one does not speak TLS.
    """

    name: str
    group: str
    opening: bytes = b""
    asks: int = 0
    drip: bytes = b""
    dripped: int = 0
    repeats: bool = False
    leaves: bool = False
    reads: bool = True
    raw: bool = False


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """Write a request. Underscores in the headers' names stand for dashes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: lxdsched", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


ASK = request("POST", "/schedule", json.dumps({"cpu": 1, "memory": 2**30, "dry_run": True}).encode())
LOOK = request("GET", "/hosts")
PADDED = json.dumps({"cpu": 1, "memory": 2**30, "dry_run": True, "x": ""}).encode()
PADDED = PADDED[:-2] + b"x" * (64 * 1024 - len(PADDED)) + PADDED[-2:]
"""The longest body that is taken: 64 KiB."""


def kinds(*, tls: bool) -> list[Kind]:
    """Return the kinds of hostile clients there are; every one of a group is as frequent as the others of it."""
    hello = client_hello() if tls else b""
    half_open = [Kind("silent", "half-open", raw=True)]
    if tls:
        half_open += [
            Kind("handshake begun", "half-open", hello[: len(hello) // 2], raw=True),
            Kind("handshake left", "half-open", hello, raw=True),
        ]
    return [
        *half_open,
        Kind("slow head", "slow", b"POST /schedule HTTP/1.1\r\nX-Slow: ", drip=b"x", dripped=1),
        Kind("slow body", "slow", b"POST /schedule HTTP/1.1\r\nContent-Length: 9999\r\n\r\n", drip=b" ", dripped=1),
        Kind("deaf", "slow", LOOK, 1, reads=False),
        Kind("deaf, asking on", "slow", LOOK, 1, drip=LOOK, dripped=len(LOOK), reads=False),
        Kind("asking", "flooding", ASK, 1, repeats=True),
        Kind("pipelining", "flooding", ASK * 16, 16, repeats=True),
        Kind("reconnecting", "flooding", ASK, 1, repeats=True, leaves=True),
        Kind("only connecting", "flooding", repeats=True, leaves=True, raw=True),
        Kind("bad JSON", "flooding", request("POST", "/schedule", b'{"cpu": '), 1, repeats=True),
        Kind("not HTTP", "flooding", b"\x16\x03 what is this?\r\n\r\n", 1, repeats=True, leaves=True),
        Kind("strangers", "flooding", request("GET", "/hosts", Authorization="Bearer guessed"), 1, repeats=True),
        Kind("64 KiB bodies", "flooding", request("POST", "/schedule", PADDED), 1, repeats=True),
    ]


def client_hello() -> bytes:
    """Return the first bytes of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        trusting().wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


def trusting() -> ssl.SSLContext:
    """Return a client's TLS that asks no server who it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Answers:
    """Finds the answers in what a connection brings."""

    _length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[int]:
        """Return the statuses of the answers that have come in whole with this."""
        held, found = self._held + data, []
        while (end := held.find(b"\r\n\r\n")) >= 0:
            head = held[:end]
            length = self._length.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(held) < whole:
                break
            found.append(int(head[9:12]))
            held = held[whole:]
        self._held = held
        return found
