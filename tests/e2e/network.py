"""Networks for tests that take them away: a relay that can fall silent, and a namespace whose link can go down."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.support import the_reactor


class Relay(Factory):
    """Passes connections on to a port of this machine, byte by byte. While it is `silent`, nothing comes through."""

    noisy = False

    def __init__(self, port: int) -> None:
        self.target = port
        self.silent = False
        self.ends: set[_End] = set()

    def buildProtocol(self, addr: object) -> Protocol:  # noqa: N802
        """Take a connection."""
        return _Near(self)

    def cut(self) -> None:
        """Break every connection."""
        for end in list(self.ends):
            end.abort()


class _End(Protocol):
    """One side of a connection that is passed on."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.other: _End | None = None
        self.waiting: list[bytes] = []
        self.gone = False

    def abort(self) -> None:
        cast(ITCPTransport, self.transport).abortConnection()

    def connectionMade(self) -> None:  # noqa: N802
        self.relay.ends.add(self)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        if self.relay.silent:
            return
        if self.other is None:
            self.waiting.append(data)
        else:
            cast(Any, self.other.transport).write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        self.gone = True
        self.relay.ends.discard(self)
        if self.other is not None and not self.other.gone and not self.relay.silent:
            self.other.abort()


class _Near(_End):
    def connectionMade(self) -> None:  # noqa: N802
        super().connectionMade()
        there = TCP4ClientEndpoint(cast(Any, the_reactor()), "127.0.0.1", self.relay.target)
        connectProtocol(there, _End(self.relay)).addCallbacks(self._join, lambda _: self.abort())

    def _join(self, far: _End) -> None:
        if self.gone:
            far.abort()
            return
        self.other, far.other = far, self
        waiting, self.waiting = self.waiting, []
        for data in waiting:
            cast(Any, far.transport).write(data)


@asynccontextmanager
async def relayed(port: int, interface: str = "127.0.0.1") -> AsyncIterator[tuple[Relay, int]]:
    """Run a relay to a port; also say on which port it listens."""
    relay = Relay(port)
    listening = the_reactor().listenTCP(0, cast(Any, relay), interface=interface)
    try:
        yield relay, cast(Any, listening.getHost()).port
    finally:
        await maybeDeferred(listening.stopListening)
        relay.silent = False
        relay.cut()


@dataclass(frozen=True)
class Namespace:
    """A network namespace with one link to this one: we are at `outside`, what runs in there at `inside`."""

    name: str
    link: str
    outside: str
    inside: str

    @property
    def enter(self) -> list[str]:
        """What runs a command in there."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def set_link(self, state: str) -> None:
        """Take the link `down`, or put it `up`."""
        _ip("link", "set", self.link, state)


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Make a network namespace, and take it away again."""
    number = os.getpid() % 60_000
    octets = f"10.{213 + number // 16_384}.{number // 64 % 256}"
    first = number % 64 * 4
    made = Namespace(f"lxdsched-{number}", f"lxds{number}", f"{octets}.{first + 1}", f"{octets}.{first + 2}")
    _ip("netns", "add", made.name)
    try:
        _ip("link", "add", made.link, "type", "veth", "peer", "name", "uplink", "netns", made.name)
        _ip("addr", "add", f"{made.outside}/30", "dev", made.link)
        _ip("-n", made.name, "addr", "add", f"{made.inside}/30", "dev", "uplink")
        for link in ("lo", "uplink"):
            _ip("-n", made.name, "link", "set", link, "up")
        made.set_link("up")
        yield made
    finally:
        _ip("netns", "delete", made.name)  # the link goes with it


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)
