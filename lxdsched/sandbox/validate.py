"""Which names and configuration keys LXD accepts, and how it refuses the others.

Only what a driver of the sandbox meets is checked in full: names and the limits. Of the other keys only whether LXD
knows them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lxdsched.sandbox.answers import LXDError

_CPU = re.compile(r"(?:[0-9]+(?:[,-][0-9]+)?)(?:,[0-9]+(?:[,-][0-9]+)*)?")
_SIZE = re.compile(r"([0-9]+)([^0-9]*)")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_MAX_INT64 = 2**63 - 1

_UNITS = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGTPE", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTPE", 1)},
}

_BOOLEANS = frozenset({"", "0", "1", "true", "false", "yes", "no", "on", "off"})
_BOOLEAN_KEYS = frozenset(
    {
        "boot.autostart",
        "limits.memory.swap",
        "migration.incremental.memory",
        "migration.stateful",
        "nvidia.runtime",
        "security.devlxd",
        "security.idmap.isolated",
        "security.nesting",
        "security.privileged",
        "security.protection.delete",
        "security.secureboot",
    }
)
_KEYS = frozenset(
    {
        "boot.autostart.delay",
        "boot.autostart.priority",
        "boot.host_shutdown_timeout",
        "boot.stop.priority",
        "cluster.evacuate",
        "limits.cpu",
        "limits.cpu.allowance",
        "limits.cpu.priority",
        "limits.disk.priority",
        "limits.memory",
        "limits.memory.enforce",
        "limits.memory.hugepages",
        "limits.memory.swap.priority",
        "limits.network.priority",
        "limits.processes",
        "linux.kernel_modules",
        "raw.apparmor",
        "raw.idmap",
        "raw.lxc",
        "raw.qemu",
        "raw.seccomp",
        "security.idmap.base",
        "security.idmap.size",
        "snapshots.expiry",
        "snapshots.pattern",
        "snapshots.schedule",
        "volatile.apply_template",
        "volatile.base_image",
        "volatile.cloud-init.instance-id",
        "volatile.evacuate.origin",
        "volatile.last_state.power",
        "volatile.uuid",
    }
)
_PREFIXES = ("cloud-init.", "environment.", "image.", "limits.kernel.", "user.", "volatile.idmap.")
_LATER_PREFIXES = ("volatile.last_state.",)


def check_instance_config(config: Mapping[str, str]) -> None:
    """Raise a 400 LXDError for the first key or value that an instance or a profile cannot have."""
    for key, value in config.items():
        _check_key(key, value)


def _check_key(key: str, value: str) -> None:
    if key in _BOOLEAN_KEYS:
        if value.lower() not in _BOOLEANS:
            raise LXDError(400, f'Invalid value for a boolean "{value}"')
        return
    if key not in _KEYS and not key.startswith(_PREFIXES + _LATER_PREFIXES):
        raise LXDError(400, f"Unknown configuration key: {key}")
    if not value:
        return
    if key == "limits.cpu":
        _check_cpu(value)
    elif key == "limits.cpu.allowance":
        _check_allowance(value)
    elif key == "limits.memory":
        _check_memory(value)
    elif key.endswith(".priority") and not (value.isdecimal() and int(value) <= 10):  # noqa: PLR2004 (LXD's scale)
        raise LXDError(400, f'Invalid value for a limit "{value}". Must be between 0 and 10')
    elif key == "limits.memory.enforce" and value not in {"soft", "hard"}:
        raise LXDError(400, f'Invalid value "{value}" (not one of [soft hard])')
    elif key == "limits.processes" and not value.isdecimal():
        raise LXDError(400, f'Invalid value for an integer "{value}"')


def _check_cpu(value: str) -> None:
    if not _CPU.fullmatch(value):
        raise LXDError(400, "Invalid CPU limit syntax")
    for number in re.split("[,-]", value):
        if int(number) > _MAX_INT64:
            raise LXDError(400, f"Invalid cpuset value: {number}")


def _check_allowance(value: str) -> None:
    if value.endswith("%"):
        _atoi("Atoi", value.removesuffix("%"))
        return
    parts = value.split("/")
    if len(parts) != 2:  # noqa: PLR2004 (quota and period)
        raise LXDError(400, f"Invalid allowance: {value}")
    for part in parts:
        _atoi("Atoi", part.removesuffix("ms"))


def _check_memory(value: str) -> None:
    if value.endswith("%"):
        _atoi("ParseInt", value.removesuffix("%"))
        return
    match = _SIZE.fullmatch(value)
    if match is None or match[2] not in _UNITS:
        raise LXDError(400, f"Invalid value: {value}")
    number, unit = int(match[1]), _UNITS[match[2]]
    if number > _MAX_INT64:
        raise LXDError(400, f"Invalid integer: {match[1]}")
    if number * unit > _MAX_INT64:
        raise LXDError(400, f"Overflow multiplying {number} with {unit}")
    if not number:
        raise LXDError(400, "Memory limit can't be 0")


def _atoi(function: str, text: str) -> None:
    if not _INTEGER.fullmatch(text):
        raise LXDError(400, f'strconv.{function}: parsing "{text}": invalid syntax')


def check_instance_name(name: str) -> None:
    """Raise a 400 LXDError for a name that is no host name, in LXD's words."""
    problem = ""
    if len(name) > 63:  # noqa: PLR2004 (a DNS label)
        problem = "Name must be 1-63 characters long"
    elif name[:1].isdigit():
        problem = "Name must not start with a number"
    elif name.startswith("-"):
        problem = 'Name must not start with "-" character'
    elif name.endswith("-"):
        problem = 'Name must not end with "-" character'
    elif not _NAME.fullmatch(name):
        problem = "Name can only contain alphanumeric and hyphen characters"
    if problem:
        raise LXDError(400, f"Invalid instance name: {problem}")


def check_plain_name(kind: str, name: str) -> None:
    """Raise a 400 LXDError for a name that a profile or a project (`kind`) cannot have."""
    if not name:
        raise LXDError(400, "No name provided")
    for character, word in (("/", "slashes"), (" ", "spaces")):
        if character in name and (kind == "Project" or character == "/"):
            raise LXDError(400, f"{kind} names may not contain {word}")
    if name in {".", ".."}:
        raise LXDError(400, f'Invalid {kind.lower()} name "{name}"')


def check_project_config(config: Mapping[str, str]) -> None:
    """Raise a 400 LXDError for a key that no project has."""
    for key in config:
        if not key.startswith(("features.", "limits.", "restricted", "user.", "backups.", "images.")):
            raise LXDError(400, f'Invalid project configuration key "{key}"')
