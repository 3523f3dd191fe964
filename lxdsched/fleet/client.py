"""The REST API of one host, over treq and mTLS.

Nothing here has a deadline of its own: whoever asks puts one over the whole question and cancels. A cancelled
question drops the host's connections, because a half-read answer cannot be left behind on one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from typing import TypeVar

from hyperlink import URL
from OpenSSL import SSL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from lxdsched.fleet import counting, payloads
from lxdsched.fleet.connections import BadAnswer, Connections
from lxdsched.fleet.drain import drain_by_cluster, drain_by_config
from lxdsched.fleet.events import Event, EventStream, Rejected, open_stream
from lxdsched.fleet.listing import OddRow, read_listing
from lxdsched.fleet.payloads import MOST_TEXT, Certificate, Environment, Hardware, Member, Row, Server
from lxdsched.fleet.settings import HTTPS_PORT, HostSettings, Patience
from lxdsched.fleet.work import in_turns
from lxdsched.model import Capacity, State
from lxdsched.names import NamedEndpoint, Names, endpoint_at
from lxdsched.tls import CertificateRefused, HostPolicy, Trust, describe

T = TypeVar("T")

_FORBIDDEN = 403
_NOT_FOUND = 404
_OK = 200
_ALL_PROJECTS = "instance_all_projects"
_MOST_REASON = 1000  # characters; what a host can put into one is bounded here, wherever it comes from


class HostError(Exception):
    """A host that could not be asked, as the state it is in and a sentence for a person."""

    def __init__(self, state: State, reason: str) -> None:
        reason = reason[:_MOST_REASON]
        super().__init__(reason)
        self.state = state
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Description:
    """What a host says of itself. `drained` says in a sentence why it is to be left alone, None when it is not."""

    capacity: Capacity
    drained: str | None = None


class HostClient:
    """Asks one host. Every question raises HostError for whatever keeps the host from answering it."""

    def __init__(
        self, reactor: IReactorTime, names: Names, settings: HostSettings, trust: Trust, patience: Patience
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._patience = patience
        there = URL.from_text(settings.url)
        # treq cannot put an IPv6 address into a request's URL. Where to connect to is not its decision anyway.
        self._base = there.replace(host="lxd")
        self._headers = Headers({"Host": [there.authority()]})
        policy = HostPolicy(settings.identity, trust, there.host)
        self._connections = Connections(self._endpoint(there, names), policy, patience.answer_size)
        self._pool = HTTPConnectionPool(reactor)
        agent = _Plain(Agent.usingEndpointFactory(reactor, self._connections, self._pool))
        # LXD sets no cookies; a host that does would have them kept for ever.
        self._http = HTTPClient(agent, IndexableCookieJar(DefaultCookiePolicy(allowed_domains=[])))

    def _endpoint(self, there: URL, names: Names) -> IStreamClientEndpoint:
        port, patience = there.port or HTTPS_PORT, self._patience.connect
        try:
            ip_address(there.host)
        except ValueError:
            return NamedEndpoint(self._reactor, names, there.host, port, patience)
        return endpoint_at(self._reactor, there.host, port, patience)

    @property
    def connected(self) -> int:
        """How many connections have been made so far: a new one may lead to a host that has changed."""
        return self._connections.made

    async def describe(self) -> Description:
        """Ask who the host is, what it lets us see, how large it is, and whether it is to be left alone."""
        server = await self._server()
        environment = self._trusted(server)
        await self._refuse_restricted()
        hardware = await self._get(Hardware, "resources")
        try:
            capacity = counting.capacity(environment, hardware, self._settings)
        except payloads.PayloadError as error:
            raise _garbage("/1.0/resources", error) from None
        return Description(capacity, await self._drain(server, environment))

    async def drained(self) -> str | None:
        """Ask whether the host is to be left alone: why, in a sentence, or None."""
        server = await self._server()
        return await self._drain(server, self._trusted(server))

    async def _drain(self, server: Server, environment: Environment) -> str | None:
        name = environment.server_name
        if (wish := drain_by_config(server.config or {}, name)) is not None or not environment.server_clustered:
            return wish
        return drain_by_cluster(await self._get(Member, "cluster", "members", name))

    async def instances(self) -> tuple[list[Row], list[OddRow]]:
        """List the instances of all projects, on a cluster those of all members; and what is wrong with odd rows."""
        envelope = await self._ask("instances", recursion="1", **{"all-projects": "true"})
        try:
            return await in_turns(self._reactor, read_listing(envelope))
        except payloads.PayloadError as error:
            raise _garbage("/1.0/instances", error) from None

    async def greet(self) -> None:
        """Ask for the least that shows that the host is there and answers us."""
        self._trusted(await self._server())

    async def listen(self, heard: Callable[[Event], None], lost: Callable[[str], None]) -> EventStream:
        """Open the stream of the lifecycle events of all projects.

        `heard` is told every event as it comes, `lost` once, in a sentence, why the stream has ended by itself. To
        cancel drops what is half open; the stream itself outlives every question, and `abort`.
        """
        there, ping = URL.from_text(self._settings.url), self._patience.ping
        try:
            return await open_stream(self._connections, self._reactor, there, ping=ping, heard=heard, lost=lost)
        except (CancelledError, ConnectingCancelledError):
            raise CancelledError from None
        except Rejected as answer:
            envelope = answer.envelope
            if envelope.error_code == _FORBIDDEN:
                reason = f"it does not let us see /1.0/events: {envelope.error[:MOST_TEXT]}"
                raise HostError(State.RESTRICTED, reason) from None
            raise _failed("/1.0/events", envelope) from None
        except Exception as error:
            raise _unreachable(_causes(error)) from error

    def abort(self) -> None:
        """Drop every connection to the host, at once."""
        self._connections.abort()

    def distrust(self) -> None:
        """Drop every connection, the stream included: each was made to somebody who is not trusted any more."""
        self._connections.abort_all()

    async def close(self) -> None:
        """Drop every connection, and wait until they are gone."""
        self.abort()
        await self._pool.closeCachedConnections()
        await deferLater(self._reactor, 0)  # an aborted connection is gone a turn later

    async def _server(self) -> Server:
        return await self._get(Server)

    def _trusted(self, server: Server) -> Environment:
        if server.auth != "trusted" or server.environment is None:
            raise HostError(State.UNTRUSTED, self._stranger())
        if _ALL_PROJECTS not in server.api_extensions:
            raise HostError(
                State.RESTRICTED,
                f"its {server.environment.server} {server.environment.server_version} cannot list "
                "the instances of all projects",
            )
        return server.environment

    def _stranger(self) -> str:
        identity = self._settings.identity
        ours = f"it does not trust our client certificate {identity.fingerprint}"
        if identity.expires <= datetime.now(UTC):
            return f"{ours}, which ended on {identity.expires:%Y-%m-%d}: make a new one and have it trusted"
        return f"{ours}: add it there with `lxc config trust add`"

    async def _refuse_restricted(self) -> None:
        # Incus hides other projects' instances from a restricted certificate without a word; this is how it shows.
        envelope = await self._answer("certificates", self._settings.identity.fingerprint)
        if envelope.error_code in {_FORBIDDEN, _NOT_FOUND}:
            return  # trusted by a CA or by an identity provider: it is no certificate that the host knows of
        if envelope.error_code:
            raise _failed("/1.0/certificates", envelope)
        try:
            restricted = payloads.open_metadata(envelope, Certificate).restricted
        except payloads.PayloadError as error:
            raise _garbage("/1.0/certificates", error) from None
        if restricted:
            raise HostError(
                State.RESTRICTED,
                "our client certificate is confined to some projects there, so what the others use cannot be seen: "
                "trust it without `--restricted`",
            )

    async def _get(self, kind: type[T], *path: str) -> T:
        envelope = await self._ask(*path)
        try:
            return payloads.open_metadata(envelope, kind)
        except payloads.PayloadError as error:
            raise _garbage(_shown(path), error) from None

    async def _ask(self, *path: str, **query: str) -> payloads.Envelope:
        envelope = await self._answer(*path, **query)
        if envelope.error_code == _FORBIDDEN:
            raise HostError(State.RESTRICTED, f"it does not let us see {_shown(path)}: {envelope.error[:MOST_TEXT]}")
        if envelope.error_code:
            raise _failed(_shown(path), envelope)
        return envelope

    async def _answer(self, *path: str, **query: str) -> payloads.Envelope:
        url = self._base.child("1.0", *path)
        for name, value in query.items():
            url = url.add(name, value)
        try:
            # Redirects are not followed: a host has no business to send our certificate elsewhere.
            response = await self._http.get(url, headers=self._headers, allow_redirects=False, unbuffered=True)
            body = await self._body(response)
        except Exception as error:
            causes = _causes(error)
            if any(isinstance(cause, CancelledError) for cause in causes):
                self.abort()
                raise CancelledError from error
            raise _unreachable(causes) from error
        try:
            envelope = payloads.open_envelope(body)
        except payloads.PayloadError as error:
            raise HostError(State.UNREACHABLE, f"it answers {response.code}, and not as LXD does: {error}") from None
        if response.code != _OK and not envelope.error_code:
            envelope.error_code = response.code
        if envelope.type != "sync" and not envelope.error_code:
            raise _garbage(_shown(path), payloads.PayloadError(f"it is of the type {envelope.type!r}"))
        return envelope

    def _body(self, response: IResponse) -> Deferred[bytes]:
        collector = _Collector(self.abort)
        response.deliverBody(collector)
        return collector.done


def _shown(path: Iterable[str]) -> str:
    return "/".join(("/1.0", *path))


def _failed(path: str, envelope: payloads.Envelope) -> HostError:
    return HostError(State.UNREACHABLE, f"it answers {path} with {envelope.error_code}: {envelope.error[:MOST_TEXT]}")


def _garbage(path: str, error: payloads.PayloadError) -> HostError:
    return HostError(State.UNREACHABLE, f"its {path} is not what LXD answers: {error}")


class _Collector(Protocol):
    """Collects a body; to cancel it is to drop the connections, by `abort`."""

    def __init__(self, abort: Callable[[], None]) -> None:
        self._chunks: list[bytes] = []
        self.done: Deferred[bytes] = Deferred(lambda _: abort())

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self._chunks.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        if self.done.called:
            return
        if reason.check(ResponseDone):
            self.done.callback(b"".join(self._chunks))
        else:
            self.done.errback(reason)


@implementer(IAgent)
class _Plain:
    """Asks for plain answers, and takes none that says it is packed: unpacked, it could be of any size."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803
    ) -> Deferred[IResponse]:
        plain = Headers() if headers is None else headers.copy()
        plain.setRawHeaders(b"Accept-Encoding", [b"identity"])
        return self._agent.request(method, uri, plain, bodyProducer).addCallback(self._take)

    def _take(self, response: IResponse) -> IResponse:
        response.headers.removeHeader(b"Content-Encoding")  # so that nobody unpacks it: LXD has nothing packed
        return response


def _causes(error: Exception) -> list[BaseException]:
    """Unfold what Twisted's HTTP client wraps into one another; the last one is at the bottom."""
    causes: list[BaseException] = [error]
    for cause in causes:
        causes.extend(reason.value for reason in getattr(cause, "reasons", ()))
    return causes


def _unreachable(causes: list[BaseException]) -> HostError:
    """Turn whatever went wrong on the way into a sentence."""
    for cause in causes:
        if isinstance(cause, CertificateRefused):
            return HostError(State.UNTRUSTED, str(cause))
        if isinstance(cause, BadAnswer):
            return HostError(State.UNREACHABLE, str(cause))
        if isinstance(cause, PotentialDataLoss):
            return HostError(State.UNREACHABLE, "its answer has neither a length nor an end")
    for cause in causes:
        if isinstance(cause, SSL.Error) and cause.args and isinstance(cause.args[0], list):
            alerts = describe(cause)
            # An alert about a certificate is about ours: a host's own is refused above.
            state = State.UNTRUSTED if "certificate" in alerts else State.UNREACHABLE
            return HostError(state, f"TLS failed: {alerts}")
    last = causes[-1]
    if type(last).__name__ == "_DataLoss":  # Twisted has no public name for it
        return HostError(State.UNREACHABLE, "its answer broke off")
    if isinstance(last, ConnectError):
        why = os.strerror(last.osError) if isinstance(last.osError, int) else str(last)
        return HostError(State.UNREACHABLE, f"no connection: {why}")
    return HostError(State.UNREACHABLE, str(last) or type(last).__name__)
