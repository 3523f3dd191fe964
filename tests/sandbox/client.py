"""A client that shows a certificate and takes any server's, noting which it was."""
# ruff: noqa: N802 - the names are Twisted's

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any, cast

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet import reactor  # noqa: TID251  # the tests run on the global reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IPolicyForHTTPS, IResponse
from zope.interface import implementer

from lxdsched.sandbox import KeyPair


@implementer(IPolicyForHTTPS, IOpenSSLClientConnectionCreator)
class _Policy:
    def __init__(self, pair: KeyPair | None, highest: int | None) -> None:
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if pair is not None:
            self._context.use_certificate(pair.certificate)
            self._context.use_privatekey(pair.key)
        if highest is not None:
            self._context.set_max_proto_version(highest)
        self.connection: SSL.Connection | None = None

    def creatorForNetloc(self, hostname: bytes, port: int) -> _Policy:
        return self

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N803
        self.connection = SSL.Connection(self._context, None)
        return self.connection


class Client:
    """Asks one server over its own kept-alive connections."""

    def __init__(self, url: str, pair: KeyPair | None = None, *, highest: int | None = None) -> None:
        self._url = url
        self._policy = _Policy(pair, highest)
        self._pool = HTTPConnectionPool(reactor)
        self._http = HTTPClient(Agent(reactor, self._policy, pool=self._pool))

    async def response(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        return await self._http.request(method, self._url + path, data=data, reactor=cast(Any, reactor))

    async def raw(self, path: str) -> bytes:
        return cast(bytes, await (await self.response("GET", path)).content())

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return the status and the decoded envelope."""
        response = await self.response(method, path, body)
        return response.code, json.loads(await response.content())

    async def get(self, path: str) -> Any:
        """Return the metadata of an answer that must be good."""
        status, envelope = await self.ask("GET", path)
        assert status == 200, envelope
        return envelope["metadata"]

    async def change(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Change something and wait for the operation, if it is one: its code and error, or the answer's."""
        status, envelope = await self.ask(method, path, body)
        if envelope["type"] != "async":
            return status, envelope["error"]
        ended = await self.get(f"{envelope['operation']}/wait")
        return ended["status_code"], ended["err"]

    @property
    def server_certificate_fingerprint(self) -> str:
        """What the latest connection saw."""
        assert self._policy.connection is not None
        certificate = self._policy.connection.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        return certificate.fingerprint(hashes.SHA256()).hex()

    async def aclose(self) -> None:
        await self._pool.closeCachedConnections()


class Arrival(Protocol):
    """Counts a body as it comes, and lets a test stop reading it."""

    def __init__(self) -> None:
        self.data = b""
        self.size = 0
        self.ended: Deferred[type] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        self.data = (self.data + data)[:4096]

    def connectionLost(self, reason: Failure | None = None) -> None:
        assert reason is not None
        self.ended.callback(type(reason.value))

    def abort(self) -> None:
        # Twisted hides the connection behind a proxy that can close it in order only.
        cast(Any, self.transport)._producer.abortConnection()


def arrive(response: Any) -> Arrival:
    """Read a body bit by bit."""
    arrival = Arrival()
    cast(IResponse, response.original).deliverBody(arrival)
    return arrival


async def pause(seconds: float) -> None:
    """Let time pass."""
    await deferLater(cast(Any, reactor), seconds)


async def within(seconds: float, answer: Coroutine[Deferred[Any], Any, Any]) -> Any:
    """Wait for an answer no longer than so, then cancel it and raise TimeoutError."""
    waiting = Deferred.fromCoroutine(answer)
    deadline = cast(Any, reactor).callLater(seconds, waiting.cancel)
    try:
        return await waiting
    except Exception as error:
        if deadline.active():
            raise
        raise TimeoutError from error
    finally:
        if deadline.active():
            deadline.cancel()


__all__ = ["Arrival", "Client", "arrive", "pause", "within"]
