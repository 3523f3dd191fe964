"""The endpoints: what each is for, who may ask, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence

from lxdsched.web.description.asked import EXAMPLES
from lxdsched.web.description.errors import ANYWHERE, GUARDED, headers, responses
from lxdsched.web.description.forms import Schema, ref
from lxdsched.web.description.told import reservation_id

SCHEMES = ("key", "password", "certificate")
"""The names of the ways to say who asks."""

_HOSTS = ("https://192.0.2.1:8443", "https://192.0.2.2:8443")
_ID = "0c6f0d6f4c0b4b7a9d3f7f2f0a1b5e6d"
_AT, _UNTIL = "2026-11-23T19:17:49.437Z", "2026-11-23T19:19:49.437Z"

_RELEASE = {
    "operationId": "releaseReservation",
    "parameters": {"id": "$response.body#/reservation/id"},
    "description": "Give the reservation back that was made.",
}


def paths() -> dict[str, Schema]:
    """Describe all endpoints."""
    return {
        "/schedule": {"post": _schedule()},
        "/reservations": {"get": _reservations()},
        "/reservations/{id}": {"delete": _release()},
        "/scheduled-resources": {"get": _scheduled_resources()},
        "/hosts": {"get": _hosts()},
        "/healthz": {"get": _healthz()},
        "/readyz": {"get": _readyz()},
        "/metrics": {"get": _metrics()},
        "/openapi.json": {"get": _description()},
    }


def _schedule() -> Schema:
    return _operation(
        name="schedule",
        tag="Scheduling",
        summary="Choose a host for an instance, and claim the capacity there",
        description="The claim, a reservation, lives until LXD shows the instance, it is given back, or its time is "
        "up. The body is read as JSON whatever its `Content-Type` says.",
        right="schedule",
        answer=_json(
            "A host was chosen.",
            {"oneOf": [ref("Placement"), ref("Trial")]},
            placement={
                "host": _HOSTS[0],
                "name": "node-1",
                "reservation": {"id": _ID, "expires_at": _UNTIL},
                "alternates": [_HOSTS[1]],
            },
            trial={
                "host": _HOSTS[0],
                "name": "node-1",
                "alternates": [],
                "summary": "1/2 hosts fit: 1 insufficient cpu",
                "hosts": {
                    _HOSTS[1]: {
                        "reason": "insufficient_cpu",
                        "message": "5 cores asked, 4 free of 16 (12 allocated)",
                    }
                },
            },
        )
        | {"links": {"release": _RELEASE}},
        codes=("request_id_reused", "never_fits", "no_capacity", "no_host_reachable", "ledger_unavailable"),
    ) | {
        "requestBody": {
            "required": True,
            "description": "What the instance needs.",
            "content": {"application/json": {"schema": ref("ScheduleRequest"), "examples": EXAMPLES}},
        }
    }


def _reservations() -> Schema:
    return _operation(
        name="listReservations",
        tag="Reservations",
        summary="Show what answers have claimed",
        description="Those whose instance was seen claim nothing any more, and are only remembered for repeated "
        "requests. With several replicas, each lists what any has claimed.",
        right="read",
        answer=_json(
            "All reservations that live.",
            ref("Reservations"),
            pending={
                "reservations": [
                    {
                        "id": _ID,
                        "host": _HOSTS[0],
                        "cpu": 2,
                        "memory": 2147483648,
                        "instance_name": "runner-7",
                        "request_id": None,
                        "client": "shoes-1",
                        "pooled": False,
                        "created_at": _AT,
                        "expires_at": _UNTIL,
                        "state": "pending",
                        "instance": None,
                    }
                ]
            },
        ),
    )


def _release() -> Schema:
    return _operation(
        name="releaseReservation",
        tag="Reservations",
        summary="Give a reservation back",
        description="For when its instance will not be made: else its capacity is kept until it expires.",
        right="schedule",
        answer={"description": "It is given back.", "headers": headers()},
        codes=("not_found", "ledger_unavailable"),
        status=204,
    ) | {
        "parameters": [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": "The reservation's `id`, from the answer that made it or from `/reservations`.",
                "schema": reservation_id(),
            }
        ]
    }


def _scheduled_resources() -> Schema:
    return _operation(
        name="listScheduledResources",
        tag="Reservations",
        summary="Show the pending reservations as shoes-lxd-multi's own scheduler shows its own",
        description="",
        right="read",
        answer=_json(
            "The pending reservations of each host that has any.",
            ref("ScheduledResources"),
            pending={
                "resources": {_HOSTS[0]: [{"cpu": 2, "memory": 2147483648, "time": _AT}]},
                "stats": {
                    _HOSTS[0]: {
                        "host_name": _HOSTS[0],
                        "total_cpu": 2,
                        "total_memory": 2147483648,
                        "count": 1,
                        "oldest_request": _AT,
                    }
                },
            },
        ),
    )


def _hosts() -> Schema:
    return _operation(
        name="listHosts",
        tag="Hosts",
        summary="Show every host as a request would see it now",
        description="Brings every host up to date first, as a request for a place would.",
        right="read",
        answer=_json(
            "All hosts.",
            ref("Hosts"),
            live={
                "hosts": [
                    {
                        "host": _HOSTS[0],
                        "name": "node-1",
                        "state": "live",
                        "reason": None,
                        "observed_at": _AT,
                        "age_seconds": 0.002,
                        "cpu": {"total": 16, "capacity": 16, "allocated": 5, "reserved": 2, "free": 9},
                        "memory": {
                            "total": 68719476736,
                            "capacity": 68719476736,
                            "allocated": 17179869184,
                            "reserved": 2147483648,
                            "free": 49392123904,
                        },
                        "instances": {"counted": 3, "exempt": 4, "unlimited": 1},
                    }
                ],
                "summary": {"hosts": 1, "schedulable": 1, "by_state": {"live": 1}},
                "certificates": [
                    {
                        "use": "client_cert",
                        "file": "/etc/lxdsched/client.crt",
                        "fingerprint": "46614ff5d13a815c0d9918434673538de4a4a7033a8c6d82584addc5497ea0b8",
                        "expires_at": "2036-05-17T00:00:00.000Z",
                        "days_left": 3456,
                        "state": "good",
                    }
                ],
            },
        ),
    )


def _healthz() -> Schema:
    return _operation(
        name="healthz",
        tag="Health",
        summary="Say that the process answers",
        description="Asks no host.",
        right=None,
        answer=_json("It does.", ref("Health"), ok={"status": "ok"}),
    )


def _readyz() -> Schema:
    return _operation(
        name="readyz",
        tag="Health",
        summary="Say whether the fleet has been looked at, and can be scheduled on",
        description="Asks no host, and no Redis.",
        right=None,
        answer=_json("It can.", ref("Readiness"), ready={"status": "ready", "hosts": 5, "schedulable": 5}),
        codes=("not_ready",),
    )


def _metrics() -> Schema:
    answer = {
        "description": "Prometheus' text format.",
        "headers": headers(),
        "content": {"text/plain": {"schema": {"type": "string", "minLength": 1}}},
    }
    said = "The configuration may open it to all (`metrics_access`), or serve it at an address of its own."
    return _operation(
        name="metrics",
        tag="Health",
        summary="Show figures to Prometheus",
        description=said,
        right="read",
        answer=answer,
    )


def _description() -> Schema:
    return _operation(
        name="describe",
        tag="Health",
        summary="Show this description",
        description="",
        right="read",
        answer=_json("This document.", ref("Description")),
    )


def _operation(
    *,
    name: str,
    tag: str,
    summary: str,
    description: str,
    right: str | None,
    answer: Schema,
    codes: Sequence[str] = (),
    status: int = 200,
) -> Schema:
    """Describe an operation. `right` is what one must have who asks, None where everybody may ask always."""
    guard = GUARDED if right else ()
    needs = f"Where access control is on, it needs the right `{right}`." if right else "It is open to all, always."
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "description": f"{description} {needs}".strip(),
        # The first, which asks for nothing, is for daemons without access control.
        "security": [{}, *({scheme: [right]} for scheme in SCHEMES)] if right else [],
        "responses": {str(status): answer, **responses((*codes, *guard, *ANYWHERE))},
    }


def _json(description: str, schema: Schema, **examples: object) -> Schema:
    shown: Schema = {"examples": {name: {"value": value} for name, value in examples.items()}} if examples else {}
    return {
        "description": description,
        "headers": headers(),
        "content": {"application/json": {"schema": schema, **shown}},
    }
