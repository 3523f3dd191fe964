"""Which hosts fit a demand, and why the others do not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from lxdsched.model import MILLICORES, Code, Demand, Exclusion, Reason, Refusal, Resources, State, View

_UNUSABLE = {
    State.UNTRUSTED: Reason.UNTRUSTED,
    State.RESTRICTED: Reason.RESTRICTED,
    State.DRAINED: Reason.DRAINED,
}
_NEVER = frozenset({Reason.NOT_CONFIGURED, Reason.WRONG_ARCHITECTURE, Reason.WRONG_INSTANCE_TYPE})
_SILENT = frozenset({Reason.UNREACHABLE, Reason.UNTRUSTED, Reason.RESTRICTED})


def fitting(demand: Demand) -> Callable[[View], bool]:
    """Return what tells quickly whether a demand fits on a host that may be chosen, the same as `exclude`."""
    cpu, memory = demand.resources.cpu, demand.resources.memory
    architecture, kind = demand.architecture, demand.instance_type

    def fits(view: View) -> bool:
        free, capacity = view.free, view.capacity
        return (
            free.cpu >= cpu
            and free.memory >= memory
            and capacity is not None
            and kind in capacity.instance_types
            and (architecture is None or architecture in capacity.architectures)
        )

    return fits


def explain(views: Iterable[View], demand: Demand) -> dict[str, Exclusion]:
    """Say of each of these hosts that may be meant why the demand does not fit there; of those that fit, nothing."""
    excluded: dict[str, Exclusion] = {}
    seen = set()
    for view in views:
        if demand.targets is not None and view.host not in demand.targets:
            continue
        seen.add(view.host)
        exclusion = exclude(view, demand)
        if exclusion is not None:
            excluded[view.host] = exclusion
    for host in sorted((demand.targets or frozenset()) - seen):
        excluded[host] = Exclusion(Reason.NOT_CONFIGURED, "not a host of this scheduler's configuration")
    return excluded


def refuse(views: Sequence[View], demand: Demand) -> Refusal:
    """Say why the demand fits on none of these hosts, and what that means for who asks."""
    meant = {view.host: view for view in views if demand.targets is None or view.host in demand.targets}
    excluded = explain(meant.values(), demand)
    return Refusal(_code(meant, demand, excluded), excluded)


def exclude(view: View, demand: Demand) -> Exclusion | None:
    """Say why this host cannot take the demand now; None when it fits."""
    if not view.schedulable or view.capacity is None:
        reason = _UNUSABLE.get(view.state, Reason.UNREACHABLE)
        return Exclusion(reason, view.reason or f"the host is {view.state}")
    return _mismatch(view, demand) or _shortage(view, demand)


def _mismatch(view: View, demand: Demand) -> Exclusion | None:
    if view.capacity is None:
        return None
    if demand.architecture is not None and demand.architecture not in view.capacity.architectures:
        offered = ", ".join(sorted(view.capacity.architectures)) or "none"
        return Exclusion(Reason.WRONG_ARCHITECTURE, f"{demand.architecture} asked, the host runs {offered}")
    if demand.instance_type not in view.capacity.instance_types:
        return Exclusion(Reason.WRONG_INSTANCE_TYPE, f"the host runs no {demand.instance_type}")
    return None


def _shortage(view: View, demand: Demand) -> Exclusion | None:
    asked, free = demand.resources, view.free
    if free.covers(asked):
        return None
    sentences = []
    if free.cpu < asked.cpu:
        sentences.append(_sentence(view, "cpu", asked, free))
    if free.memory < asked.memory:
        sentences.append(_sentence(view, "memory", asked, free))
    reason = Reason.INSUFFICIENT_CPU if free.cpu < asked.cpu else Reason.INSUFFICIENT_MEMORY
    return Exclusion(reason, "; ".join(sentences))


def _sentence(view: View, quantity: str, asked: Resources, free: Resources) -> str:
    show = cores if quantity == "cpu" else mebibytes
    usable = view.capacity.usable if view.capacity else Resources()
    parts = [f"{show(getattr(view.allocation.resources, quantity))} allocated"]
    if getattr(view.reserved, quantity):
        parts.append(f"{show(getattr(view.reserved, quantity))} reserved")
    unit = "cores" if quantity == "cpu" else "of memory"
    return (
        f"{show(getattr(asked, quantity))} {unit} asked, {show(getattr(free, quantity))} free of "
        f"{show(getattr(usable, quantity))} ({', '.join(parts)})"
    )


def _code(known: Mapping[str, View], demand: Demand, excluded: Mapping[str, Exclusion]) -> Code:
    if any(host not in excluded for host in known):
        return Code.NO_CAPACITY  # it fitted somewhere, but others were faster to claim it
    reasons = {exclusion.reason for exclusion in excluded.values()}
    if reasons & _SILENT and reasons <= _SILENT | {Reason.NOT_CONFIGURED}:
        return Code.NO_HOST_REACHABLE
    if all(_never(known.get(host), demand, exclusion) for host, exclusion in excluded.items()):
        return Code.NEVER_FITS
    return Code.NO_CAPACITY


def _never(view: View | None, demand: Demand, exclusion: Exclusion) -> bool:
    """Tell whether the host could not hold the demand even when empty, as far as it ever told us its size."""
    if exclusion.reason in _NEVER:
        return True
    if view is None or view.capacity is None:
        return False
    return _mismatch(view, demand) is not None or not view.capacity.usable.covers(demand.resources)


def summary(hosts: int, fitting: int, excluded: Mapping[str, Exclusion]) -> str:
    """Sum the exclusions up in a line: `0/5 hosts fit: 2 insufficient cpu, 1 unreachable`."""
    counts = Counter(exclusion.reason for exclusion in excluded.values())
    # The order of the reasons' definition, so that the line does not depend on the order of the hosts.
    tally = ", ".join(f"{counts[reason]} {_spoken(reason)}" for reason in Reason if counts[reason])
    return f"{fitting}/{hosts} hosts fit" + (f": {tally}" if tally else "")


def _spoken(reason: Reason) -> str:
    return reason.replace("_", " ")


def cores(millicores: int) -> str:
    """Write millicores as cores, for people: `2`, `0.25`."""
    return f"{millicores / MILLICORES:.3f}".rstrip("0").rstrip(".")


def mebibytes(size: int) -> str:
    """Write bytes for people, in MiB rounded down: `2048 MiB`."""
    return f"{size // 1024**2} MiB"
