"""The connections to one host: made under its TLS policy, and all known, so that they can be dropped."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from lxdsched.fleet.tls import HostPolicy


@implementer(IAgentEndpointFactory)
class Connections:
    """Connects to one host and port, whatever a URL says. `patience` is for the TCP connection, in seconds."""

    def __init__(self, reactor: IReactorTime, policy: HostPolicy, host: str, port: int, patience: float) -> None:
        self._endpoint = wrapClientTLS(policy, _tcp(reactor, host, port, patience))
        self._connected: WeakSet[Any] = WeakSet()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: ARG002, N802  # Twisted's name
        """Return the one endpoint there is."""
        return _Remembering(self._endpoint, self._connected)

    def abort(self) -> None:
        """Drop every connection at once."""
        for protocol in list(self._connected):
            if protocol.state != "CONNECTION_LOST":
                protocol.transport.abortConnection()
        self._connected.clear()


@implementer(IStreamClientEndpoint)
class _Remembering:
    """An endpoint that puts what it connects into a set."""

    def __init__(self, endpoint: IStreamClientEndpoint, connected: WeakSet[Any]) -> None:
        self._endpoint = endpoint
        self._connected = connected

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        def remember(protocol: IProtocol) -> IProtocol:
            self._connected.add(protocol)
            return protocol

        return self._endpoint.connect(protocolFactory).addCallback(remember)


def _tcp(reactor: IReactorTime, host: str, port: int, patience: float) -> IStreamClientEndpoint:
    try:
        version = ip_address(host).version
    except ValueError:
        return HostnameEndpoint(reactor, host, port, patience)
    kind = TCP4ClientEndpoint if version == 4 else TCP6ClientEndpoint  # noqa: PLR2004
    return kind(reactor, host, port, patience)
