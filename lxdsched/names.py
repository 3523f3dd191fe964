"""Host names and their addresses.

The system's resolver blocks and cannot be stopped, so each name that is being looked up has a thread of its own: with
a pool of threads, a few names that nobody answers for would keep every other host from being found. The threads do not
keep the process from ending.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, UnknownHostError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from zope.interface import implementer

Addresses = tuple[str, ...]

_ENDPOINTS: dict[int, Any] = {socket.AF_INET: TCP4ClientEndpoint, socket.AF_INET6: TCP6ClientEndpoint}


class Names:
    """Looks names up; all who ask for one at the same time share the answer.

    `in_reactor` has the reactor call something, from another thread. A name that was found before and is not found
    now has the addresses of before.
    """

    def __init__(self, in_reactor: Callable[[Callable[[], None]], None]) -> None:
        self._in_reactor = in_reactor
        self._waiting: dict[str, list[Deferred[Addresses]]] = {}
        self._known: dict[str, Addresses] = {}

    def look_up(self, name: str) -> Deferred[Addresses]:
        """Find the IP addresses of a name. Fails with UnknownHostError when there are none."""
        waiting = self._waiting.get(name)
        if waiting is None:
            try:
                Thread(target=self._ask, args=(name,), name=f"look up {name}", daemon=True).start()
            except RuntimeError as error:  # no thread is to be had
                return fail(UnknownHostError(f"{name}: {error}"))
            waiting = self._waiting[name] = []
        waiter: Deferred[Addresses] = Deferred(waiting.remove)
        waiting.append(waiter)
        return waiter

    def _ask(self, name: str) -> None:
        problem, found = "it has no address", Addresses()
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found = tuple(str(address[0]) for family, *_, address in answers if family in _ENDPOINTS)
        except Exception as error:
            problem = getattr(error, "strerror", None) or str(error)
        self._in_reactor(partial(self._answer, name, found, f"{name}: {problem}"))

    def _answer(self, name: str, found: Addresses, problem: str) -> None:
        if found:
            self._known[name] = found
        addresses = self._known.get(name, ())
        # Who hears the answer may ask again at once.
        for waiter in tuple(self._waiting.pop(name)):
            if waiter.called:
                continue
            if addresses:
                waiter.callback(addresses)
            else:
                waiter.errback(UnknownHostError(problem))


@implementer(IStreamClientEndpoint)
class NamedEndpoint:
    """Connects to a host by its name, at whichever of its addresses answers first when tried in turn."""

    def __init__(self, reactor: IReactorTime, names: Names, name: str, port: int, patience: float) -> None:
        self._reactor = reactor
        self._names = names
        self._name = name
        self._port = port
        self._patience = patience
        self._good = ""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        """Connect. Fails with a ConnectError for the last of the addresses."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        found = await self._names.look_up(self._name)
        # The one that answered last comes first: each that does not answer costs its whole patience.
        *others, last = sorted(found, key=lambda address: address != self._good)
        for address in others:
            try:
                return await self._at(address, factory)
            except ConnectError:
                continue
        return await self._at(last, factory)

    async def _at(self, address: str, factory: IProtocolFactory) -> IProtocol:
        endpoint = endpoint_at(self._reactor, address, self._port, self._patience)
        connected: IProtocol = await endpoint.connect(factory)
        self._good = address
        return connected


def endpoint_at(reactor: IReactorTime, address: str, port: int, patience: float) -> IStreamClientEndpoint:
    """Return what connects to an IP address, within `patience` seconds."""
    kind = _ENDPOINTS[socket.AF_INET6 if ":" in address else socket.AF_INET]
    endpoint: IStreamClientEndpoint = kind(reactor, address, port, patience)
    return endpoint
