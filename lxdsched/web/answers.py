"""Writes what was decided and what is known as JSON values: CPU in cores, memory in bytes, times in RFC 3339 UTC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lxdsched.model import MILLICORES, Code, Exclusion, Placement, Refusal, Resources, State, View
from lxdsched.placement import summary
from lxdsched.web.errors import ApiError

NO_NODE = "no suitable node found"
"""The sentence of the requirements document."""

_STATUS = {Code.NEVER_FITS: 422, Code.NO_CAPACITY: 503, Code.NO_HOST_REACHABLE: 503}
_RETRY_AFTER = {Code.NO_CAPACITY: "5", Code.NO_HOST_REACHABLE: "2"}
_SENTENCE = {Code.NO_HOST_REACHABLE: "no host could be asked"}


def placement(placed: Placement, now: float, *, explain: bool) -> dict[str, Any]:
    """Say where the instance shall go; with `explain`, also why the other hosts were left out."""
    view = placed.view
    answer: dict[str, Any] = {"host": view.host, "name": view.name, "alternates": list(placed.alternates)}
    if view.state is State.STALE:
        answer["stale"] = {"reason": view.reason, "age_seconds": _age(view, now)}
    if explain:
        fitting = placed.fitting
        answer["summary"] = summary(fitting + len(placed.excluded), fitting, placed.excluded)
        answer["hosts"] = _exclusions(placed.excluded)
    return answer


def refusal(refused: Refusal) -> ApiError:
    """Say that no host was found, and why each was left out."""
    code = refused.code
    return ApiError(
        _STATUS[code],
        code.value,
        _SENTENCE.get(code, NO_NODE),
        more={
            "summary": summary(len(refused.excluded), 0, refused.excluded),
            "hosts": _exclusions(refused.excluded),
        },
        headers={"Retry-After": _RETRY_AFTER[code]} if code in _RETRY_AFTER else {},
    )


def hosts(views: Sequence[View], now: float, wall: float) -> dict[str, Any]:
    """Say what is known of every host; `wall` is the time of day at `now`."""
    states = Counter(view.state.value for view in views)
    return {
        "hosts": [_host(view, now, wall) for view in views],
        "summary": {
            "hosts": len(views),
            "schedulable": sum(view.schedulable for view in views),
            "by_state": dict(sorted(states.items())),
        },
    }


def _host(view: View, now: float, wall: float) -> dict[str, Any]:
    capacity, allocation = view.capacity, view.allocation
    known = capacity is not None and view.observed_at is not None
    return {
        "host": view.host,
        "name": view.name,
        "state": view.state.value,
        "reason": view.reason,
        "observed_at": None if view.observed_at is None else _time(wall - now + view.observed_at),
        "age_seconds": _age(view, now),
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


def _age(view: View, now: float) -> float | None:
    return None if view.observed_at is None else round(max(now - view.observed_at, 0.0), 3)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
