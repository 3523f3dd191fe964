"""The routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, Protocol, cast

import msgspec
from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from lxdsched.access import Right
from lxdsched.certificates import OurCertificate
from lxdsched.ledger.book import LedgerUnavailableError
from lxdsched.model import Demand, Placement, Refusal, Reservation, View
from lxdsched.quoting import in_json
from lxdsched.scheduler import RepeatedRequestError, UnknownStrategyError
from lxdsched.web import answers
from lxdsched.web.access import require
from lxdsched.web.description import describe
from lxdsched.web.errors import ApiError, internal_error, invalid_request, ledger_unavailable, not_found
from lxdsched.web.requests import read_schedule
from lxdsched.web.site import BoundedRequest

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""

Handler = Callable[..., Awaitable[Any]]


class Scheduler(Protocol):
    """Decides where an instance goes, and knows the hosts."""

    async def schedule(
        self, demand: Demand, strategy: str | None = None, *, dry_run: bool = False
    ) -> Placement | Refusal:
        """Choose a host, and claim it unless it is a dry run."""

    @property
    def strategies(self) -> Sequence[str]:
        """The names of the strategies that a request may ask for."""

    async def survey(self) -> Sequence[View]:
        """Say what is known of the hosts after asking them."""

    def snapshot(self) -> Sequence[View]:
        """Say what is known, without asking."""


class Metrics(Protocol):
    """Counts what is answered."""

    def decided(self, outcome: str, seconds: float) -> None:
        """Count an answer to a request for a place."""

    def render(self) -> bytes:
        """Write all metrics."""


class Ledger(Protocol):
    """Keeps what was claimed."""

    @property
    def degraded(self) -> bool:
        """Whether what other replicas claim is not known at the moment."""

    @property
    def usable(self) -> bool:
        """Whether anything may be claimed at the moment."""

    async def reservations(self) -> Sequence[Reservation]:
        """List the living reservations."""

    async def release(self, reservation_id: str) -> bool:
        """Give one back. False when there is none."""


def _serve(right: Right | None, kind: str = "application/json") -> Callable[[Handler], Callable[..., Awaitable[bytes]]]:
    """Serve who has a right, None for everybody, with a handler.

    What that returns, None for nothing, bytes of some `kind`, or what JSON is made of, or the ApiError that it raises,
    becomes the answer.
    """

    def serve(handler: Handler) -> Callable[..., Awaitable[bytes]]:
        @wraps(handler)
        async def answer(api: Api, request: BoundedRequest, **names: str) -> bytes:
            try:
                if right is not None:
                    require(request.caller, right)
                said = await handler(api, request, **names)
                if said is None:
                    return request.prepare(204, b"")
                body = said if isinstance(said, bytes) else in_json(msgspec.json.encode(said))
                return request.prepare(200, body, kind)
            except ApiError as error:
                return request.prepare_error(error)

        return answer

    return serve


class Api:
    """The HTTP API over a scheduler and its ledger, and its metrics.

    `asked` tells whether every host has been asked once. `clock` is the one by which views and reservations are dated,
    `wall` the time of day, both in seconds. `certificates` are those of ours that are in use.
    """

    _app = Klein()

    def __init__(
        self,
        scheduler: Scheduler,
        ledger: Ledger,
        metrics: Metrics,
        *,
        asked: Callable[[], bool],
        clock: Callable[[], float],
        wall: Callable[[], float],
        certificates: Callable[[], Sequence[OurCertificate]] = tuple,
    ) -> None:
        self._scheduler = scheduler
        self._ledger = ledger
        self._metrics = metrics
        self._asked = asked
        self._clock = clock
        self._wall = wall
        self._certificates = certificates
        self._description = describe(scheduler.strategies)

    def resource(self) -> IResource:
        """Return the resource to serve."""
        return self._app.resource()

    @_app.route("/schedule", methods=["POST"])
    @_serve(Right.SCHEDULE)
    async def schedule(self, request: BoundedRequest) -> dict[str, Any]:
        """Choose a host for an instance."""
        began = self._clock()
        outcome = "internal_error"
        try:
            answer = await self._schedule(request)
            outcome = "placed" if "reservation" in answer else "dry_run"
        except ApiError as error:
            outcome = error.code
            raise
        except CancelledError:
            outcome = "abandoned"
            raise
        finally:
            self._metrics.decided(outcome, self._clock() - began)
        return answer

    async def _schedule(self, request: BoundedRequest) -> dict[str, Any]:
        asked = read_schedule(request.body(), None if request.caller is None else request.caller.name)
        request.notes.update(cpu=answers.cores(asked.demand.resources.cpu), memory=asked.demand.resources.memory)
        try:
            decided = await self._scheduler.schedule(asked.demand, asked.strategy, dry_run=asked.dry_run)
        except UnknownStrategyError as error:
            raise invalid_request(f"strategy: {error}") from None
        except RepeatedRequestError as error:
            raise ApiError(409, "request_id_reused", f"request_id: {error}") from None
        except LedgerUnavailableError as error:
            raise ledger_unavailable(str(error)) from None
        degraded = self._ledger.degraded
        if degraded:
            request.notes.update(degraded=True)
        if isinstance(decided, Refusal):
            refused = answers.refusal(decided, asked.ignored, degraded=degraded)
            request.notes.update(summary=refused.more["summary"])
            raise refused
        request.notes.update(host=decided.view.host)
        if decided.reservation is not None:
            request.notes.update(reservation=decided.reservation.id)
        answer = answers.placement(decided, asked.demand, self._now())
        if asked.ignored:
            answer["ignored_fields"] = list(asked.ignored)
        return self._own_up(answer)

    @_app.route("/hosts", methods=["GET"])
    @_serve(Right.READ)
    async def hosts(self, request: BoundedRequest) -> dict[str, Any]:  # noqa: ARG002  # Klein's form
        """Show every host as a request would see it now."""
        views = await self._scheduler.survey()
        return self._own_up(answers.hosts(views, self._certificates(), self._now()))

    @_app.route("/reservations", methods=["GET"])
    @_serve(Right.READ)
    async def reservations(self, request: BoundedRequest) -> dict[str, Any]:  # noqa: ARG002
        """Show what answers have claimed."""
        return self._own_up(answers.reservations(await self._ledger.reservations(), self._now()))

    @_app.route("/reservations/<reservation_id>", methods=["DELETE"])
    @_serve(Right.SCHEDULE)
    async def release(self, request: BoundedRequest, reservation_id: str) -> None:
        """Give back what an answer has claimed."""
        request.notes.update(reservation=reservation_id)
        try:
            released = await self._ledger.release(reservation_id)
        except LedgerUnavailableError as error:
            raise ledger_unavailable(str(error)) from None
        if not released:
            raise ApiError(404, "not_found", "there is no such reservation, or it has expired")

    @_app.route("/scheduled-resources", methods=["GET"])
    @_serve(Right.READ)
    async def scheduled_resources(self, request: BoundedRequest) -> dict[str, Any]:  # noqa: ARG002
        """Show what answers have claimed and is not seen yet, as shoes-lxd-multi's own scheduler does."""
        return answers.scheduled_resources(await self._ledger.reservations(), self._now())

    @_app.route("/healthz", methods=["GET"])
    @_serve(None)
    async def healthz(self, request: BoundedRequest) -> dict[str, Any]:  # noqa: ARG002
        """Say that the process answers."""
        return {"status": "ok"}

    @_app.route("/readyz", methods=["GET"])
    @_serve(None)
    async def readyz(self, request: BoundedRequest) -> dict[str, Any]:  # noqa: ARG002
        """Say whether the fleet has been looked at and can be scheduled on."""
        views = self._scheduler.snapshot()
        schedulable = sum(view.schedulable for view in views)
        if not self._asked():
            raise _not_ready("not every host has been asked yet", len(views), schedulable)
        if not schedulable:
            raise _not_ready("no host can be scheduled on", len(views), schedulable)
        if not self._ledger.usable:
            raise _not_ready("reservations cannot be shared through Redis", len(views), schedulable)
        status = "degraded" if self._ledger.degraded else "ready"
        return self._own_up({"status": status, "hosts": len(views), "schedulable": schedulable})

    @_app.route("/metrics", methods=["GET"])
    @_serve(Right.READ, METRICS_TYPE)
    async def metrics(self, request: BoundedRequest) -> bytes:  # noqa: ARG002
        """Show the metrics to Prometheus."""
        return self._metrics.render()

    @_app.route("/openapi.json", methods=["GET"])
    @_serve(Right.READ)
    async def description(self, request: BoundedRequest) -> bytes:  # noqa: ARG002
        """Show the description of all this."""
        return self._description

    def _own_up(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Say so where we answer without knowing what other replicas have claimed."""
        return answer | {"degraded": True} if self._ledger.degraded else answer

    def _now(self) -> answers.Moment:
        return answers.Moment(self._clock(), self._wall())

    @_app.handle_errors(MethodNotAllowed)
    def _not_allowed(self, request: IRequest, failure: Failure) -> bytes:
        allowed = ", ".join(sorted(cast(MethodNotAllowed, failure.value).valid_methods or ()))
        error = ApiError(405, "method_not_allowed", f"this path takes {allowed}", headers={"Allow": allowed})
        return cast(BoundedRequest, request).prepare_error(error)

    @_app.handle_errors(HTTPException)
    def _not_found(self, request: IRequest, failure: Failure) -> bytes:  # noqa: ARG002
        return cast(BoundedRequest, request).prepare_error(not_found())

    @_app.handle_errors(Exception)
    def _broken(self, request: IRequest, failure: Failure) -> bytes:
        bounded = cast(BoundedRequest, request)
        bounded.channel.site.report(failure, bounded.path)
        return bounded.prepare_error(internal_error())


def _not_ready(why: str, hosts: int, schedulable: int) -> ApiError:
    return ApiError(
        503,
        "not_ready",
        why,
        more={"hosts": hosts, "schedulable": schedulable},
        headers={"Retry-After": "1"},
    )
