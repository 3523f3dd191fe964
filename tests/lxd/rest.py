"""LXD's REST API as a test needs it: one request, one answer, over mTLS or over the daemon's own socket."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IReactorCore,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.internet.task import deferLater
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from lxdsched.sandbox.certs import KeyPair

DEADLINE = 60.0
"""Seconds within which any answer must be whole; a hung cluster member stalls its peers for 30."""


RUNNING = (100, 103, 105)
"""What LXD calls an operation that has been created, runs, or is pending."""


class IReactor(IReactorCore, IReactorTCP, IReactorTime, IReactorUNIX):
    """The reactor, as far as the harness uses it."""


class LxdError(Exception):
    """LXD refused a request, or the operation it started failed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} ({status})")
        self.status = status
        self.message = message


class RestClient:
    """One LXD's REST API: every answer is the `metadata` of LXD's envelope, once the operation has ended."""

    def __init__(self, agent: IAgent, pool: HTTPConnectionPool, reactor: IReactor, base: str) -> None:
        self._http = HTTPClient(agent)
        self._pool = pool
        self._reactor = reactor
        self._base = base

    @classmethod
    def over_tls(cls, url: str, reactor: IReactor, pair: KeyPair, fingerprint: str | None) -> Self:
        """Speak to `url` as the owner of `pair`; accept only the server with `fingerprint`, any when None."""
        pool = HTTPConnectionPool(reactor)
        return cls(Agent(reactor, _Policy(pair, fingerprint), pool=pool), pool, reactor, url)

    @classmethod
    def over_socket(cls, path: Path, reactor: IReactor) -> Self:
        """Speak to the daemon that listens at `path`, which trusts whoever may open it."""
        pool = HTTPConnectionPool(reactor)
        factory = _SocketFactory(reactor, path)
        return cls(Agent.usingEndpointFactory(reactor, factory, pool), pool, reactor, "http://lxd")

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | bytes | None = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout: float = DEADLINE,
        wait: bool = True,
    ) -> Any:
        """Send one request and wait for its end; `timeout` seconds for each answer. Raises LxdError.

        With `wait` False it returns at once what LXD tells about the operation that it started.
        """
        answer = await self._once_ready(method, _with_query(path, query), body, timeout)
        if answer["type"] != "async" or not wait:
            return answer["metadata"]
        bare, _, rest = answer["operation"].partition("?")
        operation = answer["metadata"]
        # In a cluster the wait for a creation may come back while it still runs.
        while operation["status_code"] in RUNNING:
            ended = await self._exchange("GET", f"{bare}/wait" + (f"?{rest}" if rest else ""), None, timeout)
            operation = ended["metadata"]
        if operation["status_code"] != 200:
            raise LxdError(operation["status_code"], operation["err"])
        return operation

    async def aclose(self) -> None:
        """Close every connection. The next request opens a new one."""
        await self._pool.closeCachedConnections()

    async def _once_ready(
        self, method: str, path: str, body: Mapping[str, object] | bytes | None, timeout: float
    ) -> Any:
        """Ask again while a member that has just started says so: in a cluster, others ask it before it is ready."""
        end = self._reactor.seconds() + timeout
        while True:
            try:
                return await self._exchange(method, path, body, timeout)
            except LxdError as error:
                if "isn't ready yet" not in str(error) or self._reactor.seconds() > end:
                    raise
            await deferLater(self._reactor, 0.2)

    async def _exchange(self, method: str, path: str, body: Mapping[str, object] | bytes | None, timeout: float) -> Any:
        answer = Deferred.fromCoroutine(self._answer(method, path, body))
        deadline = self._reactor.callLater(timeout, answer.cancel)
        try:
            return await answer
        except Exception as error:
            if deadline.active():
                raise
            raise TimeoutError(f"{method} {path} took more than {timeout:g} s") from error
        finally:
            if deadline.active():
                deadline.cancel()

    async def _answer(self, method: str, path: str, body: Mapping[str, object] | bytes | None) -> Any:
        data = json.dumps(body).encode() if isinstance(body, Mapping) else body
        kind = "application/json" if isinstance(body, Mapping) else "application/octet-stream"
        response = await self._http.request(
            method,
            self._base + path,
            data=data,
            headers=Headers({"Content-Type": [kind]}),
            reactor=cast(Any, self._reactor),
        )
        answer = json.loads(await response.content())
        if answer["type"] == "error":
            raise LxdError(answer["error_code"], answer["error"])
        return answer


async def together(parts: Iterable[Coroutine[Deferred[Any], Any, None]]) -> None:
    """Do several things at the same time and wait until all have ended; raise the first failure as it is."""
    outcomes: Any = await DeferredList(map(Deferred.fromCoroutine, parts), consumeErrors=True)
    for succeeded, outcome in outcomes:
        if not succeeded:
            outcome.raiseException()


def _with_query(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


@implementer(IPolicyForHTTPS, IOpenSSLClientConnectionCreator)
class _Policy:
    """Shows our certificate, and knows the server by its fingerprint, as LXD's own clients do."""

    def __init__(self, pair: KeyPair, fingerprint: str | None) -> None:
        options = CertificateOptions(
            privateKey=cast(Any, pair.key),  # Twisted's annotations know pyOpenSSL's old classes only
            certificate=cast(Any, pair.certificate),
            raiseMinimumTo=TLSVersion.TLSv1_3,
        )
        self._context = options.getContext()
        self._fingerprint = fingerprint

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:  # noqa: N802
        """Return what makes this policy's connections: the same for every host."""
        return self

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: N802, N803
        """Make a connection that goes on only with the expected server."""
        connection = SSL.Connection(self._context, None)
        connection.set_verify(SSL.VERIFY_PEER, self._verify)
        return connection

    def _verify(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
        shown = certificate.to_cryptography().fingerprint(hashes.SHA256()).hex()
        return depth > 0 or self._fingerprint in {None, shown}


@implementer(IAgentEndpointFactory)
class _SocketFactory:
    """Leads every address to one unix socket."""

    def __init__(self, reactor: IReactor, path: Path) -> None:
        self._reactor = reactor
        self._path = path

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        """Return the socket's endpoint, whatever `uri` says."""
        return UNIXClientEndpoint(self._reactor, str(self._path))
