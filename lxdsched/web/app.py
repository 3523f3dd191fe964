"""The routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import wraps
from typing import Any, Protocol, cast

import msgspec
from klein import Klein
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from lxdsched.model import Demand, Placement, Refusal, View
from lxdsched.scheduler import UnknownStrategyError
from lxdsched.web import answers
from lxdsched.web.errors import ApiError, internal_error, invalid_request
from lxdsched.web.requests import read_schedule
from lxdsched.web.site import BoundedRequest

Handler = Callable[["Api", BoundedRequest], Awaitable[Any]]


class Scheduler(Protocol):
    """Decides where an instance goes."""

    async def schedule(self, demand: Demand, strategy: str | None = None) -> Placement | Refusal:
        """Choose a host."""


class Fleet(Protocol):
    """Tells what is known of the hosts."""

    @property
    def asked(self) -> bool:
        """Whether every host has been asked once."""

    def snapshot(self) -> Sequence[View]:
        """What is known, without asking."""

    async def views(self, targets: Collection[str] | None = None) -> Sequence[View]:
        """What is known after asking."""


def _json(handler: Handler) -> Callable[[Api, BoundedRequest], Awaitable[bytes]]:
    """Turn what a handler returns, or the ApiError it raises, into the answer."""

    @wraps(handler)
    async def answer(api: Api, request: BoundedRequest) -> bytes:
        try:
            return request.prepare(200, msgspec.json.encode(await handler(api, request)))
        except ApiError as error:
            return request.prepare_error(error)

    return answer


class Api:
    """The HTTP API over a scheduler and its fleet.

    `clock` is the one by which views are dated, `wall` the time of day, both in seconds.
    """

    _app = Klein()

    def __init__(
        self, scheduler: Scheduler, fleet: Fleet, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._scheduler = scheduler
        self._fleet = fleet
        self._clock = clock
        self._wall = wall

    def resource(self) -> IResource:
        """Return the resource to serve."""
        return self._app.resource()

    @_app.route("/schedule", methods=["POST"])
    @_json
    async def schedule(self, request: BoundedRequest) -> dict[str, Any]:
        """Choose a host for an instance."""
        asked = read_schedule(request.body())
        request.notes.update(cpu=answers.cores(asked.demand.resources.cpu), memory=asked.demand.resources.memory)
        try:
            decided = await self._scheduler.schedule(asked.demand, asked.strategy)
        except UnknownStrategyError as error:
            raise invalid_request(f"strategy: {error}") from None
        if isinstance(decided, Refusal):
            refused = answers.refusal(decided)
            request.notes.update(summary=refused.more["summary"])
            raise refused
        request.notes.update(host=decided.view.host)
        answer = answers.placement(decided, self._clock(), explain=asked.dry_run)
        if asked.ignored:
            answer["ignored_fields"] = list(asked.ignored)
        return answer

    @_app.route("/hosts", methods=["GET"])
    @_json
    async def hosts(self, request: BoundedRequest) -> dict[str, Any]:  # noqa: ARG002  # Klein's form
        """Show every host as a request would see it now."""
        views = await self._fleet.views()
        return answers.hosts(views, self._clock(), self._wall())

    @_app.route("/healthz", methods=["GET"])
    @_json
    async def healthz(self, request: BoundedRequest) -> dict[str, Any]:  # noqa: ARG002
        """Say that the process answers."""
        return {"status": "ok"}

    @_app.route("/readyz", methods=["GET"])
    @_json
    async def readyz(self, request: BoundedRequest) -> dict[str, Any]:  # noqa: ARG002
        """Say whether the fleet has been looked at and can be scheduled on."""
        views = self._fleet.snapshot()
        schedulable = sum(view.schedulable for view in views)
        if not self._fleet.asked:
            raise _not_ready("not every host has been asked yet", len(views), schedulable)
        if not schedulable:
            raise _not_ready("no host can be scheduled on", len(views), schedulable)
        return {"status": "ready", "hosts": len(views), "schedulable": schedulable}

    @_app.handle_errors(MethodNotAllowed)
    def _not_allowed(self, request: IRequest, failure: Failure) -> bytes:
        allowed = ", ".join(sorted(cast(MethodNotAllowed, failure.value).valid_methods or ()))
        error = ApiError(405, "method_not_allowed", f"this path takes {allowed}", headers={"Allow": allowed})
        return cast(BoundedRequest, request).prepare_error(error)

    @_app.handle_errors(HTTPException)
    def _not_found(self, request: IRequest, failure: Failure) -> bytes:  # noqa: ARG002
        error = ApiError(404, "not_found", "there is nothing at this path")
        return cast(BoundedRequest, request).prepare_error(error)

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
