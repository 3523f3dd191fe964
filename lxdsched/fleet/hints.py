"""What an event may mean to us. Events are hints: when in doubt, one means that the host has to be looked at."""

from __future__ import annotations

from enum import Enum

from lxdsched.fleet.events import Event
from lxdsched.model import Capacity


class Hint(Enum):
    """What has to be asked again after an event."""

    NOTHING = "nothing"
    INSTANCES = "the listing"
    STANDING = "whether the host is to be left alone, and the listing"


_STANDING = ("config-", "cluster-")
_INSTANCES = ("instance-", "profile-", "project-", "certificate-")
_INSIDE = (
    "instance-backup",
    "instance-console",
    "instance-exec",
    "instance-file",
    "instance-log",
    "instance-metadata",
    "instance-snapshot",
)
"""What happens inside an instance, or beside it."""
_LOCAL = frozenset(
    {
        "instance-paused",
        "instance-ready",
        "instance-restarted",
        "instance-resumed",
        "instance-shutdown",
        "instance-started",
        "instance-stopped",
    }
)
"""What concerns only the member of a cluster where the instance is."""


def read_hint(event: Event, capacity: Capacity | None) -> Hint:
    """Say what an event means to the host of this capacity."""
    if not event.action or event.action.startswith(_STANDING):
        return Hint.STANDING
    if not event.action.startswith(_INSTANCES) or event.action.startswith(_INSIDE):
        return Hint.NOTHING
    elsewhere = capacity is not None and capacity.clustered and event.location not in {"", "none", capacity.name}
    return Hint.NOTHING if elsewhere and event.action in _LOCAL else Hint.INSTANCES
