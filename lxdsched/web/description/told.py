"""What the daemon answers where it does what it was asked for."""

from __future__ import annotations

from lxdsched.model import Phase, Reason, State
from lxdsched.scheduler import MOST_ALTERNATES
from lxdsched.web.description.forms import Schema, array, by_key, moment, number, or_null, record, ref, text, whole
from lxdsched.web.requests import MOST_CORES, MOST_IGNORED, MOST_MEMORY

_ID = "^[0-9a-f]{32}$"


def reservation_id() -> Schema:
    """Describe a reservation's id."""
    return {"type": "string", "pattern": _ID, "examples": ["0c6f0d6f4c0b4b7a9d3f7f2f0a1b5e6d"]}


def degraded() -> Schema:
    """Describe the admission that other replicas' claims are not known."""
    return {
        "type": "boolean",
        "const": True,
        "description": "There only, and only as true, while Redis is away: what the other replicas promise meanwhile "
        "is not known.",
    }


def ignored_fields() -> Schema:
    """Describe the list of what did not count."""
    said = "There only where the request has fields that are not known and did not count: their paths."
    return array(said, {"type": "string"}, minItems=1, maxItems=MOST_IGNORED + 1)


def summary() -> Schema:
    """Describe the line that sums up why hosts were left out."""
    example = "0/5 hosts fit: 2 insufficient cpu, 1 unreachable"
    return text("How many hosts fit, and why how many others do not, for people.", examples=[example])


def exclusions() -> Schema:
    """Describe why each host was left out."""
    return by_key("Why each host that was left out does not fit.", "host", ref("Exclusion"))


def schemas() -> dict[str, Schema]:
    """Describe all of them."""
    return {**_placements(), **_reservations(), **_resources(), **_hosts(), **_health()}


def _placements() -> dict[str, Schema]:
    host = text("The chosen host, exactly as the configuration spells it.", examples=["https://192.0.2.1:8443"])
    start = {"host": host, "name": or_null(text("What LXD there calls itself (`server_name`)."))}
    alternates = array(
        "The next best hosts, best first. Nothing is claimed there.", {"type": "string"}, maxItems=MOST_ALTERNATES
    )
    rest = {
        "alternates": alternates,
        "pooled": {
            "type": "boolean",
            "description": "There only where `resource_type` or `image_alias` was given: whether a pool instance of "
            "that kind waits on the host, promised to nobody else.",
        },
        "stale": ref("Staleness"),
        "ignored_fields": ignored_fields(),
        "degraded": degraded(),
    }
    optional = ("pooled", "stale", "ignored_fields", "degraded")
    return {
        "Placement": record(
            "Where the instance shall go, and what was claimed for it there.",
            {**start, "reservation": ref("Claim"), **rest},
            optional=optional,
        ),
        "Trial": record(
            "Where the instance would go (`dry_run`), and why not elsewhere. Nothing was claimed.",
            {**start, **rest, "summary": summary(), "hosts": exclusions()},
            optional=optional,
        ),
        "Claim": record(
            "What was claimed.",
            {
                "id": reservation_id() | {"description": "What the reservation is known by."},
                "expires_at": moment("When it ends, if no instance appears."),
            },
        ),
        "Staleness": record(
            "There only where the host is chosen from an old view.",
            {"reason": or_null(text("Why the view is old.")), "age_seconds": _age()},
        ),
        "Exclusion": record(
            "Why a host was left out.",
            {
                "reason": {
                    "type": "string",
                    "enum": [each.value for each in Reason],
                    "description": "For programs. Where both CPU and memory lack, it is the CPU.",
                },
                "message": text("For people.", examples=["5 cores asked, 4 free of 16 (12 allocated)"]),
            },
        ),
    }


def _age() -> Schema:
    return or_null(number("Seconds since its instances were last listed; null when they never were.", minimum=0))


def _reservations() -> dict[str, Schema]:
    name = "What the request called the instance"
    return {
        "Reservations": record(
            "What answers have claimed.",
            {"reservations": array("Oldest first.", ref("Reservation")), "degraded": degraded()},
            optional=["degraded"],
        ),
        "Reservation": record(
            "What one answer has claimed.",
            {
                "id": reservation_id() | {"description": "What it is known by."},
                "host": text("Where."),
                "cpu": number("Cores.", minimum=0, maximum=MOST_CORES),
                "memory": whole("Bytes.", maximum=MOST_MEMORY, format="int64"),
                "instance_name": or_null(text(f"{name} or its runner; null where it did not.")),
                "request_id": or_null(text("What the request called itself; null where it did not.")),
                "client": or_null(
                    text("The client that asked, as the clients file names it; null where that was not asked.")
                ),
                "pooled": {"type": "boolean", "description": "Whether a pool instance was promised."},
                "created_at": moment("When it was made."),
                "expires_at": moment("When it ends, if no instance appears."),
                "state": {
                    "type": "string",
                    "enum": [each.value for each in Phase],
                    "description": f"`{Phase.PENDING}`: LXD does not show the instance yet. `{Phase.SEEN}`: it does, "
                    "and nothing is claimed any more.",
                },
                "instance": or_null(text("The instance that was seen, as `project/name`.")),
            },
        ),
    }


def _resources() -> dict[str, Schema]:
    return {
        "ScheduledResources": record(
            "Pending reservations in the form of shoes-lxd-multi's own scheduler.",
            {
                "resources": by_key(
                    "The reservations, oldest first.", "host", array("Those of a host.", ref("ScheduledResource"))
                ),
                "stats": by_key("Their sums.", "host", ref("ScheduledSums")),
            },
        ),
        "ScheduledResource": record(
            "A pending reservation.",
            {
                "cpu": number("Cores.", minimum=0),
                "memory": whole("Bytes.", format="int64"),
                "time": moment("When it was made."),
            },
        ),
        "ScheduledSums": record(
            "The pending reservations of a host, in sum.",
            {
                "host_name": text("The host."),
                "total_cpu": number("Cores.", minimum=0),
                "total_memory": whole("Bytes."),
                "count": whole("How many there are.", least=1),
                "oldest_request": moment("When the oldest was made."),
            },
        ),
    }


def _hosts() -> dict[str, Schema]:
    states = [each.value for each in State]
    return {
        "Hosts": record(
            "Every host as a request would see it now.",
            {
                "hosts": array("In the order of the configuration.", ref("Host")),
                "summary": ref("HostsSummary"),
                "certificates": array("The certificates that the daemon uses.", ref("Certificate")),
                "degraded": degraded(),
            },
            optional=["degraded"],
        ),
        "HostsSummary": record(
            "How many hosts there are.",
            {
                "hosts": whole("All."),
                "schedulable": whole("Those that may be chosen."),
                "by_state": record(
                    "Those in each state that any is in.",
                    {state: whole(f"Those that are {state}.", least=1) for state in states},
                    optional=states,
                ),
            },
        ),
        "Host": record(
            "One host.",
            {
                "host": text("As the configuration spells it."),
                "name": or_null(text("What LXD there calls itself (`server_name`); null until it has told it.")),
                "state": {"type": "string", "enum": states, "description": "How it stands."},
                "reason": or_null(text("Why it is not plainly good, in a sentence.")),
                "observed_at": or_null(moment("When its instances were last listed; null when they never were.")),
                "age_seconds": _age(),
                "cpu": or_null(ref("HostCpu")),
                "memory": or_null(ref("HostMemory")),
                "instances": or_null(ref("HostInstances")),
            },
        ),
        "HostCpu": record("Cores of a host. Null as long as it has told nothing.", _amounts("number")),
        "HostMemory": record("Bytes of a host. Null as long as it has told nothing.", _amounts("integer")),
        "HostInstances": record(
            "Instances on a host. Null as long as it has told nothing.",
            {
                "counted": whole("Those that count."),
                "exempt": whole("Those that do not, by their status."),
                "unlimited": whole("Of the counted ones those without a limit on CPU or on memory."),
            },
        ),
        "Certificate": record(
            "A certificate that the daemon uses, and for how long it can.",
            {
                "use": text("The setting that names its file.", examples=["client_cert"]),
                "file": text("The file, as it is named there."),
                "fingerprint": {
                    "type": "string",
                    "pattern": "^[0-9a-f]{64}$",
                    "description": "SHA-256 of the certificate, as LXD shows it.",
                },
                "expires_at": moment("When it ends."),
                "days_left": {"type": "integer", "description": "Whole days until then; negative when it has ended."},
                "state": {
                    "type": "string",
                    "enum": ["good", "ending", "ended", "early"],
                    "description": "`ending` within 30 days, `early` where it is not valid yet.",
                },
            },
        ),
    }


def _amounts(kind: str) -> dict[str, Schema]:
    def amount(description: str, **more: object) -> Schema:
        return {"type": kind, "description": description, **more}

    return {
        "total": amount("What the machine has.", minimum=0),
        "capacity": amount("What may be given away of it."),
        "allocated": amount("What instances are entitled to.", minimum=0),
        "reserved": amount("What answers have claimed whose instances LXD does not show yet.", minimum=0),
        "free": amount("What is left; negative on a host that carries more than its capacity."),
    }


def _health() -> dict[str, Schema]:
    return {
        "Health": record("The process answers.", {"status": {"type": "string", "const": "ok"}}),
        "Readiness": record(
            "Requests can be answered.",
            {
                "status": {
                    "type": "string",
                    "enum": ["ready", "degraded"],
                    "description": "`degraded` while Redis is away.",
                },
                "hosts": whole("All hosts."),
                "schedulable": whole("Those that may be chosen.", least=1),
                "degraded": degraded(),
            },
            optional=["degraded"],
        ),
        "Description": {
            "type": "object",
            "description": "This document.",
            "properties": {
                "openapi": {"type": "string", "pattern": r"^3\.1\."},
                "info": {"type": "object"},
                "paths": {"type": "object"},
            },
            "required": ["openapi", "info", "paths"],
        },
    }
