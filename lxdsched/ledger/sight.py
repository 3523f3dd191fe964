"""Which instance, once it is seen, is which reservation's.

By its name, where the caller told it: the instance's own or that of its runner. Else by what was asked for: a pool
instance of the promised kind, or an instance of the same size, takes over the oldest reservation that it may be meant
by. Only an instance that has newly come to count, or to its name, takes one over, and one that has done so takes no
other; one that has only moved to another project is not new. A pool instance without a runner is stock that was laid
in, and nobody's. So what is claimed is neither counted beside its own instance nor forgotten before that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from lxdsched.model import Instance, Reservation, Resources

_LIKENESS = 8
"""Memory that differs by up to this part is alike: shoes-lxd-multi asks for 2GiB as 2 000 000 000 bytes, and gives the
instance 2GiB; with TiB the two are a tenth apart."""


def news(now: Mapping[str, Instance], before: Mapping[str, Instance] | None) -> bool:
    """Tell whether any instance has newly come to count, or to its runner."""
    if before is None:
        return bool(now)
    if now is before:
        return False
    return any((earlier := before.get(label)) is None or earlier.runner != each.runner for label, each in now.items())


def matches(
    pending: Sequence[Reservation],
    now: Mapping[str, Instance],
    before: Mapping[str, Instance] | None,
    tied: Collection[str],
) -> dict[str, str]:
    """Pair reservations with the instances that take them over: the label of the instance by the reservation's id.

    `pending` are one host's reservations, oldest first; `now` the instances that count there, by label, and `before`
    those that did when it was last looked at: None when it never was, and nothing can be told from a size. `tied` are
    the labels of those that have taken over a living reservation already.
    """
    named = [each for each in pending if each.instance_name is not None]
    nameless = [each for each in pending if each.instance_name is None]
    pairs: dict[str, str] = {}
    gone = Counter((each.name, each.resources) for label, each in (before or {}).items() if label not in now)
    for label, instance in now.items():
        earlier = None if before is None else before.get(label)
        if earlier is not None and (label in tied or earlier.runner == instance.runner):
            continue
        if (meant := _by_name(named, instance)) is not None:
            named.remove(meant)
        elif (
            before is not None
            and (earlier is None or _laid_in(earlier))
            and label not in tied  # it was only frozen for a while
            and not (earlier is None and _moved(instance, gone))
            and (meant := _by_looks(nameless, instance)) is not None
        ):
            nameless.remove(meant)
        if meant is not None:
            pairs[meant.id] = label
    return pairs


def _moved(instance: Instance, gone: Counter[tuple[str, Resources]]) -> bool:
    """Tell whether an instance is one of those that are gone, which then is found."""
    known = (instance.name, instance.resources)
    gone[known] -= 1
    return gone[known] >= 0


def _by_name(pending: Sequence[Reservation], instance: Instance) -> Reservation | None:
    names = {instance.name, instance.runner}
    return next((each for each in pending if each.instance_name in names), None)


def _by_looks(pending: Sequence[Reservation], instance: Instance) -> Reservation | None:
    if _laid_in(instance):
        return None
    # A pool instance that was promised still waits when one comes that was made for the purpose.
    unpromised = [each for each in pending if each.pool is None]
    for meant, among in (
        (_promised_so, pending),
        (_promised, pending),
        (_equal, unpromised),
        (_similar, unpromised),
        (_equal, pending),
        (_similar, pending),
    ):
        for each in among:
            if meant(each, instance):
                return each
    return None


def _laid_in(instance: Instance) -> bool:
    return instance.kind is not None and instance.runner is None


def _promised(reservation: Reservation, instance: Instance) -> bool:
    return reservation.pool is not None and instance.kind is not None and reservation.pool.meets(instance.kind)


def _promised_so(reservation: Reservation, instance: Instance) -> bool:
    return _promised(reservation, instance) and _similar(reservation, instance)


def _equal(reservation: Reservation, instance: Instance) -> bool:
    return reservation.resources == instance.resources


def _similar(reservation: Reservation, instance: Instance) -> bool:
    asked, counted = reservation.resources, instance.resources
    return asked.cpu == counted.cpu and abs(asked.memory - counted.memory) * _LIKENESS <= max(
        asked.memory, counted.memory
    )
