"""How a host stands, and in a sentence why not plainly well."""

from __future__ import annotations

from lxdsched.fleet.client import HostError
from lxdsched.fleet.inquiry import Inquiry
from lxdsched.model import State, View


def look(
    host: str, inquiry: Inquiry, trouble: HostError | None, *, live: bool, why_not: str | None, stale: float
) -> View:
    """Return the view of a host by what it said last, and by what keeps it from answering (`trouble`).

    `why_not` says why it is not `live`, where that is known; `stale` is for how many seconds a stale view is good.
    """
    state, reason = _standing(inquiry, trouble, live, why_not, stale)
    return View(
        host=host,
        state=state,
        reason=reason,
        capacity=inquiry.capacity,
        allocation=inquiry.allocation,
        observed_at=inquiry.observed_at,
        asked_at=inquiry.asked_at,
    )


def _standing(
    inquiry: Inquiry, trouble: HostError | None, live: bool, why_not: str | None, stale: float
) -> tuple[State, str | None]:
    if trouble is not None:
        if trouble.state is State.STALE and inquiry.too_old:
            return State.UNREACHABLE, f"{trouble.reason}, for longer than {stale:g} s"
        return trouble.state, trouble.reason
    if inquiry.drained is not None:
        return State.DRAINED, inquiry.drained
    if doubts := inquiry.allocation.doubts:
        instance, doubt = next(iter(doubts.items()))
        others = f", and {len(doubts) - 1} more" if len(doubts) > 1 else ""
        return State.DOUBTFUL, f"cannot tell what {instance} may use: {doubt}{others}"
    if live:
        return State.LIVE, None
    return State.POLLED, None if why_not is None else f"it does not tell when something happens: {why_not}"
