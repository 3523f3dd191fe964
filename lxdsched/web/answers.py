"""Writes what was decided and what is known as JSON values: CPU in cores, memory in bytes, times in RFC 3339 UTC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lxdsched.certificates import OurCertificate
from lxdsched.model import (
    MILLICORES,
    Code,
    Demand,
    Exclusion,
    Phase,
    Placement,
    Refusal,
    Reservation,
    Resources,
    State,
    View,
)
from lxdsched.placement import summary
from lxdsched.web.errors import ApiError

NO_NODE = "no suitable node found"
"""The sentence of the requirements document."""

_STATUS = {Code.NEVER_FITS: 422, Code.NO_CAPACITY: 503, Code.NO_HOST_REACHABLE: 503}
_RETRY_AFTER = {Code.NO_CAPACITY: "5", Code.NO_HOST_REACHABLE: "2"}
_SENTENCE = {Code.NO_HOST_REACHABLE: "no host could be asked"}


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on the clock by which views and reservations are dated, and as the time of day: both in seconds."""

    clock: float
    wall: float

    def show(self, seconds: float) -> str:
        """Write a time of the clock as a time of day."""
        return _time(datetime.fromtimestamp(self.wall - self.clock + seconds, UTC))

    def age(self, view: View) -> float | None:
        """Say how many seconds ago a host was listed; None when it never was."""
        return None if view.observed_at is None else round(max(self.clock - view.observed_at, 0.0), 3)


def placement(placed: Placement, demand: Demand, now: Moment) -> dict[str, Any]:
    """Say where the instance shall go, and why not to the other hosts where that was asked for."""
    view, made = placed.view, placed.reservation
    answer: dict[str, Any] = {"host": view.host, "name": view.name}
    if made is not None:
        answer["reservation"] = {"id": made.id, "expires_at": now.show(made.expires_at)}
    answer["alternates"] = list(placed.alternates)
    if demand.pool is not None:
        answer["pooled"] = placed.pooled
    if view.state is State.STALE:
        answer["stale"] = {"reason": view.reason, "age_seconds": now.age(view)}
    if placed.excluded is not None:
        answer["summary"] = summary(placed.hosts, placed.hosts - len(placed.excluded), placed.excluded)
        answer["hosts"] = _exclusions(placed.excluded)
    return answer


def refusal(refused: Refusal, ignored: Sequence[str], *, degraded: bool) -> ApiError:
    """Say that no host was found, and why each was left out; and which fields of the request did not count.

    `degraded` tells that it was not known what other replicas have claimed.
    """
    code = refused.code
    return ApiError(
        _STATUS[code],
        code.value,
        _SENTENCE.get(code, NO_NODE),
        more={
            "summary": summary(len(refused.excluded), 0, refused.excluded),
            "hosts": _exclusions(refused.excluded),
        }
        | ({"ignored_fields": list(ignored)} if ignored else {})
        | ({"degraded": True} if degraded else {}),
        headers={"Retry-After": _RETRY_AFTER[code]} if code in _RETRY_AFTER else {},
    )


def hosts(views: Sequence[View], certificates: Iterable[OurCertificate], now: Moment) -> dict[str, Any]:
    """Say what is known of every host, and when the certificates end that are in use."""
    states = Counter(view.state.value for view in views)
    return {
        "hosts": [_host(view, now) for view in views],
        "summary": {
            "hosts": len(views),
            "schedulable": sum(view.schedulable for view in views),
            "by_state": dict(sorted(states.items())),
        },
        "certificates": [_certificate(each, datetime.fromtimestamp(now.wall, UTC)) for each in certificates],
    }


def _certificate(certificate: OurCertificate, now: datetime) -> dict[str, Any]:
    return {
        "use": certificate.use,
        "file": certificate.file,
        "fingerprint": certificate.fingerprint,
        "expires_at": _time(certificate.expires),
        "days_left": certificate.days_left(now),
        "state": certificate.state(now),
    }


def _host(view: View, now: Moment) -> dict[str, Any]:
    capacity, allocation = view.capacity, view.allocation
    known = capacity is not None and view.observed_at is not None
    return {
        "host": view.host,
        "name": view.name,
        "state": view.state.value,
        "reason": view.reason,
        "observed_at": None if view.observed_at is None else now.show(view.observed_at),
        "age_seconds": now.age(view),
        "cpu": _quantity(view, "cpu") if known else None,
        "memory": _quantity(view, "memory") if known else None,
        "instances": {
            "counted": allocation.counted,
            "exempt": allocation.exempt,
            "unlimited": allocation.unlimited,
        }
        if known
        else None,
    }


def reservations(made: Iterable[Reservation], now: Moment) -> dict[str, Any]:
    """List reservations."""
    return {
        "reservations": [
            {
                "id": each.id,
                "host": each.host,
                "cpu": cores(each.resources.cpu),
                "memory": each.resources.memory,
                "instance_name": each.instance_name,
                "request_id": each.request_id,
                "client": each.client,
                "pooled": each.pool is not None,
                "created_at": now.show(each.created_at),
                "expires_at": now.show(each.expires_at),
                "state": each.phase.value,
                "instance": each.instance,
            }
            for each in made
        ]
    }


def scheduled_resources(made: Iterable[Reservation], now: Moment) -> dict[str, Any]:
    """Show what is claimed and not seen yet, in the form of shoes-lxd-multi's own scheduler; memory in bytes."""
    by_host: dict[str, list[Reservation]] = {}
    for each in made:
        if each.phase is Phase.PENDING:
            by_host.setdefault(each.host, []).append(each)
    return {
        "resources": {
            host: [
                {
                    "cpu": cores(each.resources.cpu),
                    "memory": each.resources.memory,
                    "time": now.show(each.created_at),
                }
                for each in pending
            ]
            for host, pending in by_host.items()
        },
        "stats": {
            host: {
                "host_name": host,
                "total_cpu": cores(sum(each.resources.cpu for each in pending)),
                "total_memory": sum(each.resources.memory for each in pending),
                "count": len(pending),
                "oldest_request": now.show(min(each.created_at for each in pending)),
            }
            for host, pending in by_host.items()
        },
    }


def _quantity(view: View, quantity: str) -> dict[str, int | float]:
    nothing = Resources()
    amounts = {
        "total": view.capacity.total if view.capacity else nothing,
        "capacity": view.capacity.usable if view.capacity else nothing,
        "allocated": view.allocation.resources,
        "reserved": view.reserved,
        "free": view.free,
    }
    show = cores if quantity == "cpu" else int
    return {name: show(getattr(amount, quantity)) for name, amount in amounts.items()}


def cores(millicores: int) -> int | float:
    """Turn millicores into cores, a whole number where it is one."""
    return millicores / MILLICORES if millicores % MILLICORES else millicores // MILLICORES


def _exclusions(excluded: Mapping[str, Exclusion]) -> dict[str, dict[str, str]]:
    return {host: {"reason": why.reason.value, "message": why.message} for host, why in excluded.items()}


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
