"""Bytes that are not quite HTTP, sent to a running daemon: each gets answers that are described, or is hung up on."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance import conforms_as_error
from tests.e2e.daemon import PATIENCE
from tests.e2e.fuzzed import EXAMPLES, Fuzzed, fuzzed
from tests.e2e.replicas import Fleet

AT_ONCE = 400
"""Connections that are open together."""
LAST = b"\r\n\r\nGET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"
"""Ends every case: what is taken for a request of its own closes the connection."""

Headers = Sequence[tuple[bytes, bytes]]

noise = st.binary(min_size=1, max_size=30)
tokens = st.sampled_from([b"GET", b"POST", b"DELETE", b"HEAD", b"OPTIONS", b"BREW", b"get", b"CONNECT", b"PRI"])
paths = st.sampled_from(
    [
        *(b"/schedule", b"/hosts", b"/reservations", b"/scheduled-resources", b"/healthz", b"/readyz", b"/metrics"),
        *(b"/openapi.json", b"/", b"", b"*", b"//", b"/..", b"/../healthz", b"/healthz/", b"/healthz?a=%00&b", b"/%00"),
        *(b"/reservations/", b"/reservations/%2F", b"/reservations/%zz", b"/reservations/a%0d%0ab", b"/reservations/%"),
        *(b"/reservations/\xff", b"/%C3%A9", b"/%ff", b"/\xc3\xa9", b"/hosts#x", b"/;a=b", b"/hosts%3f", b"/%68osts"),
        *(b"http://elsewhere/healthz", b"HTTPS://[::1]:1/hosts", b"http://", b"http:/healthz", b"https://a?b", b"a:1"),
        *(b"http://a/http://b/healthz", b"http://a\xff/healthz", b"/" + b"a" * 5000, b"/%41" * 2000),
    ]
)
versions = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 ", b"http/1.1", b""])
names = st.sampled_from(
    [
        *(b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Expect", b"Content-Type", b"Upgrade"),
        *(b"Authorization", b"Cookie", b"X-Request-Id", b"X-Forwarded-For", b"Accept-Encoding", b"Range", b"Trailer"),
        *(b"If-None-Match", b"content-length ", b" Host", b"", b"\xff", b"A" * 300),
    ]
)
values = st.sampled_from(
    [
        *(
            b"0",
            b"1",
            b"20",
            b"60000",
            b"-1",
            b"+5",
            b" 5",
            b"5, 5",
            b"0x10",
            b"1e3",
            b"99999999999999999999",
            b"9" * 5000,
            b"\xd9\xa1",
            b"",
        ),
        *(b"chunked", b"Chunked", b"gzip, chunked", b"identity", b"chunked, chunked", b"close", b"keep-alive"),
        *(b"100-continue", b"200-maybe", b"application/json", b"multipart/form-data", b"text/plain; charset=\xff"),
        *(b"localhost", b"a b", b"[::1", b"\x00", b"\xff\xfe", b"Basic", b"Basic AAAA", b"Basic \xff", b"Bearer \xc3"),
        *(b"Digest x", b"h2c", b"websocket", b"bytes=0-", b"*", b"a=b; c=d", b"x" * 9000, b"\r\n folded"),
    ]
)
lengths = st.sampled_from(
    [b"0", b"20", b"60000", b"-1", b"+5", b"5, 5", b"0x10", b"9" * 20, b"9" * 5000, b"\xd9\xa1", b""]
)
framing = st.tuples(st.just(b"Content-Length"), lengths) | st.just((b"Transfer-Encoding", b"chunked"))
bodies = st.sampled_from(
    [
        *(b'{"cpu":1,"memory":1}', b'{"cpu":1,"memory":1,"dry_run":true}', b"{", b"[]", b"", b"\xff", b"[" * 60_000),
        *(b"14\r\n" + b'{"cpu":1,"memory":1}' + b"\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", b"0\r\n\r\n"),
        *(b"-1\r\n", b"fffffffff\r\nx", b"5\r\nhel", b"5\r\nhelloX\r\n", b"\r\n", b"0\r\n" + b"x" * 5000, b"1" * 5000),
        *(b" " * 70_000, b'{"cpu":1,"memory":1,"request_id":"\\ud800"}', b'{"cpu":1,"memory":1,"\\u0000":"\\u0000"}'),
        *(b'{"cpu":1e999,"memory":1}', b'{"cpu":1,"memory":' + b"9" * 5000 + b"}", b'{"cpu":1,"cpu":2,"memory":1}'),
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Write something like a request; every other one can be read as such."""
    body, line = draw(bodies | noise), (draw(tokens), draw(paths), b"HTTP/1.1")
    length = (b"Content-Length", b"%d" % len(body))
    if draw(st.booleans()):
        return written(*line, [(b"Host", draw(values | noise)), length], body)
    if draw(st.booleans()):
        return written(*line, [draw(framing), draw(framing)], body)
    headers = draw(st.lists(st.tuples(names, values | noise) | framing, max_size=5))
    ends = draw(st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"\r\n\t"]))
    line = (draw(tokens | noise), draw(paths | noise), draw(versions | noise))
    return written(*line, [*headers, length] if draw(st.booleans()) else headers, body, ends)


def written(method: bytes, path: bytes, version: bytes, headers: Headers, body: bytes, ends: bytes = b"\r\n") -> bytes:
    """Put a request together."""
    lines = [b" ".join([method, path, version]), *(name + b": " + value for name, value in headers), b"", body]
    return ends.join(lines)


@st.composite
def traffic(draw: st.DrawFn) -> bytes:
    """Write some of them one after the other, and spoil some of that."""
    sent = b"".join(draw(st.lists(requests(), min_size=1, max_size=3)))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(sent)))
        sent = sent[:at] + draw(noise | st.just(b"")) + sent[at + draw(st.integers(0, 3)) :]
    return sent


@dataclass
class Sent:
    """What was sent on a connection, and what came back."""

    data: bytes
    connection: socket.socket
    received: bytes = b""
    closed: bool = False

    def send(self, data: bytes) -> None:
        """Send bytes, unless it was hung up meanwhile."""
        with suppress(ConnectionError):
            self.connection.sendall(data)

    def read(self, seconds: float) -> None:
        """Read what comes, until nothing comes for this long."""
        while not self.closed and select.select([self.connection], [], [], seconds)[0]:
            try:
                data = self.connection.recv(65536)
            except ConnectionError:
                data = b""
            self.received += data
            self.closed = not data

    def settle(self, until: float) -> list[int]:
        """Read until the connection is closed, hold the answers to the description, and return their statuses."""
        self.read(0.1)
        if not self.closed:
            self.send(LAST)  # it waits for the next request, or for the rest of this one
        while not self.closed:
            assert time.monotonic() < until, f"neither answered nor closed: {self.data!r} got {self.received!r}"
            self.read(0.1)
        self.connection.close()
        return list(self.statuses())

    def statuses(self) -> Iterator[int]:
        """Read the answers, of which the last may have been cut off by the end of the connection."""
        rest = self.received
        while rest:
            head, end, rest = rest.partition(b"\r\n\r\n")
            line, *lines = head.decode("ascii").split("\r\n")
            version, status, _ = line.split(" ", 2)
            assert version in {"HTTP/1.1", "HTTP/1.0"}, self.received
            if not end:
                return
            yield int(status)
            headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
            if int(status) in {HTTPStatus.CONTINUE, HTTPStatus.NO_CONTENT} or rest.startswith(b"HTTP/1."):
                continue  # the answer to HEAD has no body either
            length = int(headers["content-length"])
            body, rest = rest[:length], rest[length:]
            if int(status) >= HTTPStatus.BAD_REQUEST and len(body) == length:
                conforms_as_error(int(status), headers, json.loads(body))


@pytest.fixture(scope="module")
def served(fleet: Fleet) -> Iterator[Fuzzed]:
    """A daemon."""
    with fuzzed(fleet.hosts) as it:
        it.daemon.soon(lambda: it.daemon.ask("GET", "/readyz")[0], 200)
        yield it


def test_whatever_is_sent_is_answered_or_hung_up_on_and_the_daemon_goes_on(served: Fuzzed) -> None:
    open_now: list[Sent] = []
    seen = set[int]()

    def settle() -> None:
        until = time.monotonic() + PATIENCE
        while open_now:
            seen.update(open_now.pop().settle(until))
        served.is_well()

    @settings(max_examples=EXAMPLES * 20)
    @given(traffic() | st.binary(max_size=200))
    def send(data: bytes) -> None:
        connection = socket.create_connection(("127.0.0.1", served.daemon.port), PATIENCE)
        sent = Sent(data, connection)
        open_now.append(sent)
        sent.send(data + LAST)
        sent.read(0)
        if len(open_now) >= AT_ONCE:
            settle()

    try:
        send()
        settle()
        assert seen >= {200, 400, 404, 405}
    finally:
        for each in open_now:
            each.connection.close()
