"""One hostile client and its connection, which neither blocks nor waits."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from dataclasses import dataclass, field
from typing import Protocol

from tests.e2e.hostility import Answers, Kind

READ, WRITE = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT
NOT_NOW = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)
DRIP = 1.0
"""Seconds between two pieces of what comes slowly."""
BIND_ADDRESS_NO_PORT = 24
"""The socket option of that name, which socket does not know yet: a port is chosen once it is known where to."""


@dataclass
class Tally:
    """What the clients of a kind have come to: `open` at the end, `most` at any one time."""

    clients: int = 0
    connected: int = 0
    failed: int = 0
    dropped: int = 0
    requests: int = 0
    sent: int = 0
    open: int = 0
    most: int = 0
    answers: dict[int, int] = field(default_factory=dict)


class Crowd(Protocol):
    """All clients."""

    epoll: select.epoll
    context: ssl.SSLContext | None

    def register(self, client: Client) -> None:
        """Watch a connection that is being made."""

    def came_up(self, client: Client) -> None:
        """Count a connection."""

    def later(self, seconds: float, client: Client) -> None:
        """Let a client go on later, if its connection lasts."""


class Client:
    """A hostile client and its connection."""

    sock: socket.socket

    def __init__(self, crowd: Crowd, kind: Kind, address: str, port: int, tally: Tally) -> None:
        self.crowd = crowd
        self.kind = kind
        self.address = address
        self.port = port
        self.tally = tally
        self.tally.clients += 1
        self.up = False
        self.fd = -1
        self.life = 0  # how many connections it has had

    def connect(self) -> None:
        """Begin to connect. OSError where that cannot be."""
        self.life += 1
        self.up = False
        self.out = b""
        self.owed = 0
        self.answers = Answers()
        self.sock = sock = socket.socket()
        sock.setblocking(False)
        # A reset at the end leaves no port behind that cannot be used for a minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.kind.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
            sock.bind((self.address, 0))
            if (code := sock.connect_ex(("127.0.0.1", self.port))) not in {0, errno.EINPROGRESS}:
                raise OSError(code, os.strerror(code))
        except OSError:
            sock.close()
            raise
        self.fd = sock.fileno()
        self.mask = READ | WRITE
        self.crowd.register(self)

    def event(self, events: int) -> None:
        """Go on with whatever can be gone on with. OSError when the connection is over."""
        if not self.up:
            self._come_up()
        elif self.out and events & WRITE:
            self._flush()
        if self.up and events & ~WRITE:
            self._read(events)

    def _come_up(self) -> None:
        if not isinstance(self.sock, ssl.SSLSocket):
            if code := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
            if self.crowd.context is not None and not self.kind.raw:
                self.sock = self.crowd.context.wrap_socket(self.sock, do_handshake_on_connect=False)
        if isinstance(self.sock, ssl.SSLSocket):
            try:
                self.sock.do_handshake()
            except NOT_NOW as why:
                self._want(WRITE if isinstance(why, ssl.SSLWantWriteError) else READ)
                return
        self.up = True
        self.crowd.came_up(self)
        self._open()

    def _open(self) -> None:
        kind = self.kind
        if kind.leaves and not kind.opening:
            raise ConnectionAbortedError("it wanted nothing but to connect")
        if kind.drip:
            self.crowd.later(DRIP, self)
        self.owed = kind.asks
        self.send(kind.opening, kind.asks)

    def drip(self) -> None:
        """Send a little more."""
        self.crowd.later(DRIP, self)
        self.send(self.kind.drip, self.kind.asks)

    def send(self, data: bytes, requests: int) -> None:
        """Send something that ends so many requests."""
        self.tally.requests += requests
        self.out += data
        self._flush()

    def _flush(self) -> None:
        try:
            while self.out:
                sent = self.sock.send(self.out[: 64 * 1024])
                self.tally.sent += sent
                self.out = self.out[sent:]
        except NOT_NOW:
            pass
        reading = READ if self.kind.reads else select.EPOLLRDHUP
        self._want(reading | WRITE if self.out else reading)

    def _read(self, events: int) -> None:
        if not self.kind.reads:
            raise ConnectionResetError("it was hung up on")
        try:
            data = b""
            while data := self.sock.recv(256 * 1024):
                for status in self.answers.feed(data):
                    self.tally.answers[status] = self.tally.answers.get(status, 0) + 1
                    self.owed -= 1
                if not isinstance(self.sock, ssl.SSLSocket):
                    break
        except NOT_NOW:
            if not events & (select.EPOLLHUP | select.EPOLLERR):
                data = b"-"
        if self.kind.repeats and self.owed <= 0:
            if self.kind.leaves:
                raise ConnectionAbortedError("it comes again")
            if data:
                self.owed += self.kind.asks
                self.send(self.kind.opening, self.kind.asks)
        if not data:
            raise ConnectionResetError("it was hung up on")

    def _want(self, mask: int) -> None:
        if mask != self.mask:
            self.mask = mask
            self.crowd.epoll.modify(self.fd, mask)
