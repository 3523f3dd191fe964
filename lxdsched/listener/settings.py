"""What clients may do to the listener."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much clients may take of us. Bytes, seconds and counts.

    A request may have a head of `head` and a body of `body`, and has `sending` from its first byte to its last; as long
    does the client have to take an answer, and a new connection to send its first request. A connection waits for the
    next request for `idle`. There are at most `connections`, of one peer at most `connections_per_peer`, and at most
    `requests` being answered at the same time. A peer that asks or connects more often than `rate_per_peer` times a
    second is read more slowly; 0 is no limit.
    """

    body: int = 64 * 1024
    head: int = 16 * 1024
    sending: float = 10.0
    idle: float = 75.0
    connections: int = 4096
    connections_per_peer: int = 1024
    requests: int = 2048
    rate_per_peer: int = 500


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen, and what for.

    `endpoint` is a Twisted endpoint, `tcp:8080:interface=127.0.0.1`, `unix:...` or `systemd:...`. `metrics_endpoint` is
    one for health and metrics alone, without TLS and access control; with `metrics_open` everybody may ask the first
    one for metrics too.
    """

    endpoint: str
    metrics_endpoint: str | None = None
    metrics_open: bool = False
