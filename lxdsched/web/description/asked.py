"""What a client may ask for: the body of `POST /schedule`, in both of its forms."""

from __future__ import annotations

from collections.abc import Sequence

from lxdsched.limits import SUFFIXES
from lxdsched.model import InstanceType
from lxdsched.web.description.forms import Schema, array, or_null, ref
from lxdsched.web.requests import MEBIBYTE, MOST_CORES, MOST_MEMORY, MOST_TARGETS, MOST_TEXT

EXAMPLES = {
    "documented": {
        "summary": "2 cores and 2048 MiB, anywhere",
        "value": {"instance_requirements": {"cpu": 2, "memory": 2048}},
    },
    "flat": {
        "summary": "The same as the shoes-lxd-multi server asks for it, in bytes",
        "value": {"cpu": 2, "memory": 2147483648},
    },
    "everything": {
        "summary": "A runner with a name, on one of two hosts, preferably from the pool",
        "value": {
            "instance_requirements": {"cpu": 4, "memory": "8GiB"},
            "target_hosts": ["https://192.0.2.1:8443", "https://192.0.2.2:8443"],
            "instance_name": "runner-7",
            "request_id": "job-7",
            "instance_type": "container",
            "architecture": "x86_64",
            "resource_type": "large",
            "image_alias": "ubuntu-24.04",
        },
    },
    "trial": {
        "summary": "Only explain where it would go",
        "value": {"instance_requirements": {"cpu": 2, "memory": 2048}, "dry_run": True},
    },
}


def schemas(strategies: Sequence[str]) -> dict[str, Schema]:
    """Describe requests. `strategies` are those that may be asked for."""
    options = _options(strategies)
    amounts = "`cpu` and `memory` (in bytes) at the top level, as the shoes-lxd-multi server sends them."
    return {
        "ScheduleRequest": {
            "description": "Two forms, told apart by the key `instance_requirements`. Fields that are not known do not "
            "count, and come back in `ignored_fields`.",
            "oneOf": [ref("DocumentedRequest"), ref("FlatRequest")],
        },
        "DocumentedRequest": {
            "type": "object",
            "description": "What the instance needs is in `instance_requirements`, with `memory` in MiB.",
            "properties": {"instance_requirements": ref("InstanceRequirements"), **options},
            "required": ["instance_requirements"],
        },
        "FlatRequest": {
            "type": "object",
            "description": amounts,
            "properties": {"cpu": _cores(), "memory": _memory("bytes", 1), **options},
            "required": ["cpu", "memory"],
            "not": {"required": ["instance_requirements"]},
        },
        "InstanceRequirements": {
            "type": "object",
            "description": "What the instance needs.",
            "properties": {"cpu": _cores(), "memory": _memory("MiB", MEBIBYTE)},
            "required": ["cpu", "memory"],
        },
    }


def _options(strategies: Sequence[str]) -> dict[str, Schema]:
    pool = "Prefer a host where a frozen instance of the pool waits that has this"
    return {
        "target_hosts": or_null(
            array(
                "Only these hosts may be chosen, spelled as the configuration spells them. Left out: any.",
                _text("A host."),
                minItems=1,
                maxItems=MOST_TARGETS,
            )
        ),
        "instance_type": or_null(
            {
                "type": "string",
                "enum": [each.value for each in InstanceType],
                "description": f"What the instance will be; `{InstanceType.CONTAINER}` when left out.",
            }
        ),
        "architecture": or_null(
            _text(
                "Only hosts that run it, as LXD names it: `x86_64`, `aarch64`. `amd64` and `arm64` are understood too."
            )
        ),
        "strategy": or_null(
            {
                "type": "string",
                "enum": list(strategies),
                "description": "The order of preference among the hosts that fit: the configured one when left out, "
                "else one that the configuration allows.",
            }
        ),
        "instance_name": or_null(
            _text(
                "What the instance, or its runner, will be called. The reservation ends as soon as LXD shows an "
                "instance of that name."
            )
        ),
        "request_id": or_null(
            _text(
                "A key of the caller's. While the reservation lives, a repeated request with the same key gets the "
                "same answer and claims nothing again; one that asks for something else is answered with 409. With "
                "access control each client has keys of its own: the same key of two clients is two requests. It "
                "does not count with `dry_run`."
            )
        ),
        "resource_type": or_null(_text(f"{pool} `user.myshoes_resource_type`.")),
        "image_alias": or_null(_text(f"{pool} `user.myshoes_image_alias`.")),
        "dry_run": or_null(
            {"type": "boolean", "description": "True: claim nothing, and explain the decision in the answer."}
        ),
    }


def _text(description: str) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": MOST_TEXT, "description": description}


def _cores() -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": MOST_CORES, "description": "Whole cores."}


def _memory(unit: str, factor: int) -> Schema:
    return {
        "description": f"A number of {unit}, or a text with one of LXD's suffixes, such as `2GiB` or `2048MB`.",
        "oneOf": [
            {"type": "integer", "minimum": 1, "maximum": MOST_MEMORY // factor, "format": "int64"},
            {"type": "string", "pattern": _sizes(), "examples": ["2GiB", "2048MB"]},
        ],
    }


def _sizes() -> str:
    """Write the pattern of texts that say a size, so that whatever matches it is small enough."""
    forms = []
    for suffix, factor in SUFFIXES.items():
        most = MOST_MEMORY // factor
        digits = len(str(most)) - 1
        if suffix:
            forms.append(f"[1-{most}]{suffix}" if not digits else f"[1-9][0-9]{{0,{digits - 1}}}{suffix}")
    return f"^({'|'.join(forms)})$"
