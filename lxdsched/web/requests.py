"""Reads the body of `POST /schedule`, in both of its forms.

The documented form has `instance_requirements` with memory in MiB, the flat form of the shoes-lxd-multi server has
`cpu` and `memory` in bytes at the top level. A field that is missing or mistyped is an error, never a silent zero;
one that is not known is ignored and reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from lxdsched.limits import LimitError, parse_size
from lxdsched.model import MILLICORES, Demand, InstanceType, Kind, Resources
from lxdsched.quoting import cut
from lxdsched.web.errors import ApiError, invalid_request

MEBIBYTE = 1024**2
MOST_CORES = 1_000_000
MOST_MEMORY = 2**63 - 1
MOST_TEXT = 256
MOST_TARGETS = 4096
"""Hosts that a request may name: what is said of each in the answer is much longer than its name."""
MOST_IGNORED = 32
"""Ignored fields that the answer names."""
MOST_NAME = 64
"""Characters of an ignored field's name that the answer shows."""

# For numbers such as 1e308, msgspec itself takes 50 times as long: for a body full of them a good part of a second.
_decoder = msgspec.json.Decoder(float_hook=float)
_REQUIREMENTS = "instance_requirements"
_COMMON = frozenset(
    {
        "architecture",
        "dry_run",
        "image_alias",
        "instance_name",
        "instance_type",
        "request_id",
        "resource_type",
        "strategy",
        "target_hosts",
    }
)

# What people call architectures, and what LXD calls them (lxc/lxd shared/osarch).
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "i386": "i686", "armhf": "armv7l", "ppc64el": "ppc64le"}


@dataclass(frozen=True, slots=True)
class ScheduleRequest:
    """A request, read. `ignored` are the paths of fields that are not known, the first of them where there are many."""

    demand: Demand
    strategy: str | None
    dry_run: bool
    ignored: tuple[str, ...]


def read_schedule(body: bytes, client: str | None = None) -> ScheduleRequest:
    """Read a request of this client. ApiError `invalid_request` with the field's path when it is not one."""
    top = _object(_json(body), "the body")
    if _REQUIREMENTS in top:
        place, prefix, unit = _object(top[_REQUIREMENTS], _REQUIREMENTS), f"{_REQUIREMENTS}.", MEBIBYTE
        ignored = [name for name in top if name != _REQUIREMENTS and name not in _COMMON]
        ignored += [prefix + name for name in place if name not in {"cpu", "memory"}]
    else:
        place, prefix, unit = top, "", 1
        if not top.keys() & {"cpu", "memory"}:
            raise invalid_request(f"{_REQUIREMENTS}: is missing (or cpu and memory at the top level)")
        ignored = [name for name in top if name not in {"cpu", "memory"} and name not in _COMMON]
    demand = Demand(
        resources=Resources(
            cpu=_cores(place, prefix + "cpu") * MILLICORES, memory=_memory(place, prefix + "memory", unit)
        ),
        targets=_targets(top.get("target_hosts")),
        instance_type=_instance_type(top.get("instance_type")),
        architecture=_architecture(top.get("architecture")),
        pool=_pool(top),
        instance_name=_text(top.get("instance_name"), "instance_name"),
        request_id=_text(top.get("request_id"), "request_id"),
        client=client,
    )
    dry_run = top.get("dry_run")
    if dry_run is not None and not isinstance(dry_run, bool):
        raise _wrong("dry_run", "true or false", dry_run)
    return ScheduleRequest(demand, _text(top.get("strategy"), "strategy"), bool(dry_run), _named(ignored))


def _named(ignored: Sequence[str]) -> tuple[str, ...]:
    shown = [cut(name, MOST_NAME) for name in ignored[:MOST_IGNORED]]
    return (*shown, f"... and {len(ignored) - MOST_IGNORED} more") if len(ignored) > MOST_IGNORED else tuple(shown)


def _json(body: bytes) -> object:
    if not body.strip():
        raise invalid_request("the body is empty; it must be a JSON object")
    try:
        return _decoder.decode(body)
    except RecursionError:
        raise invalid_request("the body is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid_request(f"the body is not JSON: {error}") from None


def _object(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _wrong(path, "a JSON object", value)
    return value


def _cores(place: Mapping[str, object], path: str) -> int:
    return _in_range(_whole(_required(place, path), path, "a whole number of cores"), path, MOST_CORES)


def _memory(place: Mapping[str, object], path: str, unit: int) -> int:
    value = _required(place, path)
    if not isinstance(value, str):
        return _in_range(_whole(value, path, "a whole number or a text such as 2GiB"), path, MOST_MEMORY // unit) * unit
    _text(value, path)
    if value.strip().isdigit():
        raise invalid_request(f"{path}: a text needs a unit, such as {value.strip()}MiB")
    try:
        return _in_range(parse_size(value), path, MOST_MEMORY)
    except LimitError as error:
        raise invalid_request(f"{path}: {error}") from None


def _required(place: Mapping[str, object], path: str) -> object:
    name = path.rpartition(".")[2]
    if place.get(name) is None:
        raise invalid_request(f"{path}: is missing")
    return place[name]


def _whole(value: object, path: str, wanted: str) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)  # JSON does not tell 2.0 from 2
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(path, wanted, value)
    return value


def _in_range(value: int, path: str, most: int) -> int:
    if not 1 <= value <= most:
        raise invalid_request(f"{path}: must be between 1 and {most}")
    return value


def _targets(value: object) -> frozenset[str] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise _wrong("target_hosts", "an array of hosts", value)
    if len(value) > MOST_TARGETS:
        raise invalid_request(f"target_hosts: must not name more than {MOST_TARGETS} hosts")
    for number, host in enumerate(value):
        if _text(host, f"target_hosts[{number}]") is None:
            raise _wrong(f"target_hosts[{number}]", "a text", host)
    if not value:
        raise invalid_request("target_hosts: names no host; leave it out to allow every host")
    return frozenset(value)


def _instance_type(value: object) -> InstanceType:
    if value is None:
        return InstanceType.CONTAINER
    try:
        return InstanceType(_text(value, "instance_type") or "")
    except ValueError:
        raise invalid_request(f"instance_type: must be one of {', '.join(InstanceType)}") from None


def _architecture(value: object) -> str | None:
    name = _text(value, "architecture")
    return None if name is None else _ARCHITECTURES.get(name, name)


def _pool(top: Mapping[str, object]) -> Kind | None:
    kind = Kind(_text(top.get("resource_type"), "resource_type"), _text(top.get("image_alias"), "image_alias"))
    return None if kind == Kind() else kind


def _text(value: object, path: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong(path, "a text", value)
    if not 1 <= len(value) <= MOST_TEXT:
        raise invalid_request(f"{path}: must have between 1 and {MOST_TEXT} characters")
    return value


def _wrong(path: str, wanted: str, value: object) -> ApiError:
    kinds = {dict: "an object", list: "an array", str: "a text", bool: "a boolean", type(None): "null"}
    return invalid_request(f"{path}: must be {wanted}, not {kinds.get(type(value), 'this number')}")
