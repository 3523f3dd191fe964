"""Clients for the tests: one that speaks HTTP, one that speaks bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

import treq
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from tests.conformance import conforms, conforms_as_error
from tests.support import the_reactor


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    phrase: str
    headers: dict[str, str]
    body: Any


async def ask(
    method: str,
    url: str,
    body: object = None,
    *,
    raw: bytes | None = None,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask once, on a connection of its own, and read the answer: a text where it is not JSON.

    Whatever it is, the daemon's description must have it.
    """
    reactor = the_reactor()
    pool = HTTPConnectionPool(reactor, persistent=False)
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    given = Headers({"Content-Type": [content_type], **{name: [value] for name, value in (headers or {}).items()}})
    response = await treq.request(method, url, data=data, headers=given, agent=Agent(reactor, pool=pool))
    content = await treq.content(response)
    raw_headers = response.headers.getAllRawHeaders()
    # Twisted's client adds an empty Content-Encoding of its own.
    found = {name.decode().lower(): b",".join(values).decode() for name, values in raw_headers if any(values)}
    if not content:
        parsed = None
    elif found["content-type"] == "application/json":
        parsed = json.loads(content)
        assert content.endswith(b"}\n")
    else:
        parsed = content.decode()
    conforms(method, urlsplit(url).path, response.code, found, parsed)
    return Answer(response.code, response.phrase.decode(), found, parsed)


class Raw(Protocol):
    """A connection that keeps what it receives."""

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[None] = Deferred()
        self._wanted: tuple[bytes, Deferred[None]] | None = None

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Keep it."""
        self.received += data
        if self._wanted is not None and self._wanted[0] in self.received:
            wanted, self._wanted = self._wanted, None
            wanted[1].callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Tell it."""
        self.closed.callback(None)

    async def until(self, part: bytes) -> None:
        """Wait until this has been received."""
        if part not in self.received:
            done: Deferred[None] = Deferred()
            self._wanted = (part, done)
            await done

    def send(self, data: bytes) -> None:
        """Send bytes."""
        assert self.transport is not None
        self.transport.write(data)

    async def close(self) -> None:
        """Close, and wait until it is."""
        assert self.transport is not None
        self.transport.loseConnection()
        await self.closed

    def answers(self) -> list[tuple[int, Any]]:
        """Split what was received into answers with a Content-Length each; errors must be described."""
        found, rest = [], self.received
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            line, *lines = head.decode().split("\r\n")
            status = int(line.split(" ", 2)[1])
            headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
            length = int(headers["content-length"])
            body = json.loads(rest[:length]) if length else None
            if body is not None and headers["content-type"] == "application/json":
                assert rest[:length].endswith(b"}\n")
            if status >= HTTPStatus.BAD_REQUEST:
                conforms_as_error(status, headers, body)
            found.append((status, body))
            rest = rest[length:]
        return found


async def connect(port: int) -> Raw:
    """Connect to a port of this machine."""
    endpoint = TCP4ClientEndpoint(the_reactor(), "127.0.0.1", port)
    return cast(Raw, await connectProtocol(endpoint, Raw()))
