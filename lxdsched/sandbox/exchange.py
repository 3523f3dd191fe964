"""The HTTP server in front of the API: requests are counted, then answered or spoiled by a fault."""
# ruff: noqa: N802 - the names are Twisted's

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from lxdsched.sandbox.api import Api
from lxdsched.sandbox.transport import Condition

if TYPE_CHECKING:
    from lxdsched.sandbox import faults


class QuietSite(Site):
    """HTTP without an access log, whose clock would tick every second in every server, and without idle time-outs."""

    noisy = False

    def __init__(self, condition: Condition, api: Api, reactor: IReactorTime) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            _Entry(condition, api, reactor),
            _CapturableRequest,
            timeout=None,
            reactor=reactor,
            parsePOSTFormSubmission=False,
        )

    def startFactory(self) -> None:
        """Begin, without the log."""

    def stopFactory(self) -> None:
        """End."""

    def log(self, request: http.Request) -> None:
        """Forget the request."""


class _CapturableRequest(Request):
    """A request whose body a fault can take over."""

    transport: TLSMemoryBIOProtocol
    _sink: Callable[[bytes], None] | None = None

    def capture(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if self._sink is None:
            super().write(data)  # type: ignore[no-untyped-call]
        else:
            self._held.append(data)

    def finish(self) -> None:
        if self._sink is None:
            super().finish()  # type: ignore[no-untyped-call]
        else:
            sink, self._sink = self._sink, None
            sink(b"".join(self._held))


class _Entry(Resource):
    """Where requests come in."""

    isLeaf = True  # noqa: N815

    def __init__(self, condition: Condition, api: Api, reactor: IReactorTime) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._condition = condition
        self._api = api
        self._reactor = reactor

    def render(self, request: _CapturableRequest) -> int:
        path = request.path.decode("utf-8", "replace")
        counters = self._condition.requests
        counters.began(path)
        request.notifyFinish().addBoth(lambda _: counters.ended(path))
        fault = self._condition.fault
        if fault is None or not path.startswith(fault.path):
            self._api.resource.render(request)
        else:
            exchange: faults.Exchange = _Exchange(request, self._reactor, self._api)
            fault.strike(exchange)
        return NOT_DONE_YET


class _Exchange:
    """The means of a fault, see `faults.Exchange`."""

    def __init__(self, request: _CapturableRequest, clock: IReactorTime, api: Api) -> None:
        self._request = request
        self._clock = clock
        self._api = api

    @property
    def request(self) -> Request:
        return self._request

    def proceed(self) -> None:
        self._api.resource.render(self._request)

    def capture(self, sink: Callable[[bytes], None]) -> None:
        self._request.capture(sink)
        self.proceed()

    def write_raw(self, data: bytes) -> None:
        self._request.transport.write(data)

    def hang_up(self) -> None:
        # Not on the transport itself: HTTP is its producer, and TLS waits for that to end.
        self._request.loseConnection()  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        self._request.transport.abortConnection()

    def later(self, seconds: float, work: Callable[[], None]) -> IDelayedCall:
        call = self._clock.callLater(seconds, work)

        def cancel(_: object) -> None:
            if call.active():
                call.cancel()

        self._request.notifyFinish().addBoth(cancel)
        return call
