"""The simulated server's REST API over HTTP: routes, access, and errors in LXD's envelope.

What is answered is decided in the modules of endpoints, which know no HTTP. The order of refusals is LXD's: an
unknown path (404), an untrusted caller (403), a method that the path does not have (501), then the endpoint's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast
from weakref import WeakKeyDictionary

from cryptography import x509
from klein import Klein
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from lxdsched.sandbox import catalog, cluster, general, instances, power, trust
from lxdsched.sandbox.answers import Answer, LXDError, error
from lxdsched.sandbox.faults import EVENTS
from lxdsched.sandbox.questions import Endpoint, Question, Subscription, forbidden
from lxdsched.sandbox.state import Caller, ServerState
from lxdsched.sandbox.streams import Streams

ROUTES: Mapping[str, Mapping[str, Endpoint]] = MappingProxyType(
    {
        "/": {"GET": general.show_versions},
        "/1.0": {
            "GET": general.show_server,
            "PATCH": general.update_server,
            "PUT": general.update_server,
        },
        "/1.0/resources": {"GET": general.show_resources},
        "/1.0/instances": {"GET": instances.show_all, "POST": instances.create},
        "/1.0/instances/<name>": {
            "GET": instances.show,
            "POST": instances.rename,
            "PATCH": instances.patch,
            "PUT": instances.put,
            "DELETE": instances.delete,
        },
        "/1.0/instances/<name>/state": {"GET": power.show_state, "PUT": power.put_state},
        "/1.0/operations": {"GET": general.show_operations},
        "/1.0/operations/<uuid>": {"GET": general.show_operation},
        "/1.0/operations/<uuid>/wait": {"GET": general.show_operation},
        "/1.0/profiles": {"GET": catalog.show_profiles, "POST": catalog.create_profile},
        "/1.0/profiles/<name>": {
            "GET": catalog.show_profile,
            "PATCH": catalog.patch_profile,
            "PUT": catalog.put_profile,
            "DELETE": catalog.delete_profile,
        },
        "/1.0/projects": {"GET": catalog.show_projects, "POST": catalog.create_project},
        "/1.0/projects/<name>": {"GET": catalog.show_project, "DELETE": catalog.delete_project},
        "/1.0/certificates": {"GET": trust.show_certificates, "POST": trust.create_certificate},
        "/1.0/certificates/<fingerprint>": {
            "GET": trust.show_certificate,
            "DELETE": trust.delete_certificate,
        },
        "/1.0/cluster": {"GET": cluster.show_cluster},
        "/1.0/cluster/members": {"GET": cluster.show_members},
        "/1.0/cluster/members/<name>": {
            "GET": cluster.show_member,
            "PATCH": cluster.patch_member,
            "PUT": cluster.put_member,
        },
        "/1.0/cluster/members/<name>/state": {"POST": cluster.update_member_state},
        EVENTS: {"GET": general.open_events},
    }
)

_OPEN = frozenset({general.show_versions, general.show_server, trust.create_certificate})
"""What an untrusted caller may ask, too: LXD then says what it says."""

_ONE_WRITE = 2048
"""Up to this many bytes Go's server knows the length before it sends; beyond, it sends chunks."""


class Api:
    """The HTTP application over one `ServerState`, whose events go over its `streams`."""

    _log = Logger()
    _app = Klein()

    def __init__(self, state: ServerState, streams: Streams) -> None:
        self._state = state
        self._streams = streams
        self._peers: WeakKeyDictionary[object, x509.Certificate | None] = WeakKeyDictionary()
        self.resource = self._app.resource()

    def _serve(self, request: IRequest, methods: Mapping[str, Endpoint], names: Mapping[str, str]) -> bytes | IResource:
        if request.method == b"OPTIONS":
            request.setHeader(b"content-length", b"0")
            return b""
        try:
            answer = self._answer(request, methods, names)
        except LXDError as problem:
            answer = error(problem)
        if isinstance(answer, Answer):
            return _send(request, answer)
        return self._streams.resource(answer) if _is_handshake(request) else _send_bad_handshake(request)

    def _answer(
        self, request: IRequest, methods: Mapping[str, Endpoint], names: Mapping[str, str]
    ) -> Answer | Subscription:
        caller = self._caller(request)
        endpoint = methods.get(request.method.decode("ascii", "replace"))
        if not caller.trusted and endpoint not in _OPEN:
            raise forbidden()
        if endpoint is None:
            raise LXDError(501, "not implemented")
        arguments = {
            key.decode("utf-8", "replace"): values[0].decode("utf-8", "replace") for key, values in request.args.items()
        }
        return endpoint(Question(self._state, caller, names, arguments, request.content.read()))

    def _caller(self, request: IRequest) -> Caller:
        """Who asks: a connection keeps its client's certificate; whether it is trusted is asked anew every time."""
        # The site behind TLS makes nothing else than its own requests; Klein and zope.interface know less.
        transport = cast(TLSMemoryBIOProtocol, cast(Request, request).transport)
        if transport not in self._peers:
            certificate = transport.getPeerCertificate()
            self._peers[transport] = None if certificate is None else certificate.to_cryptography()
        return self._state.caller(self._peers[transport], _address(transport.getPeer()))

    @_app.handle_errors(HTTPException)
    def _not_found(self, request: IRequest, failure: Failure) -> bytes:
        del failure
        return _send(request, error(LXDError(404, "not found")))

    @_app.handle_errors(Exception)
    def _broken(self, request: IRequest, failure: Failure) -> bytes:
        self._log.failure("The sandbox failed to answer", failure=failure)
        return _send(request, error(LXDError(500, f"sandbox: {failure.getErrorMessage()}")))


def _send(request: IRequest, answer: Answer) -> bytes:
    request.setResponseCode(answer.status)
    request.setHeader(b"content-type", b"application/json")
    if answer.location is not None:
        request.setHeader(b"location", answer.location.encode())
    if len(answer.body) <= _ONE_WRITE:
        request.setHeader(b"content-length", str(len(answer.body)).encode())
    return answer.body


def _is_handshake(request: IRequest) -> bool:
    def has(name: str, token: str) -> bool:
        values = request.requestHeaders.getRawHeaders(name, [])
        return any(each.strip().lower() == token for value in values for each in value.split(","))

    keyed = request.requestHeaders.hasHeader("sec-websocket-key")
    return keyed and has("connection", "upgrade") and has("upgrade", "websocket") and has("sec-websocket-version", "13")


def _send_bad_handshake(request: IRequest) -> bytes:
    request.setResponseCode(400)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    request.setHeader(b"sec-websocket-version", b"13")
    return b"Bad Request\n"


def _address(peer: object) -> str:
    if isinstance(peer, IPv6Address):
        return f"[{peer.host}]:{peer.port}"
    return f"{peer.host}:{peer.port}" if isinstance(peer, IPv4Address) else ""


def _register(app: Klein, path: str, methods: Mapping[str, Endpoint]) -> None:
    @app.route(path, endpoint=path)
    def serve(self: Api, request: IRequest, **names: str) -> bytes | IResource:
        return self._serve(request, methods, names)


for _path, _methods in ROUTES.items():
    _register(Api._app, _path, _methods)  # noqa: SLF001 (the routes of this very class)
