"""The endpoints of the server itself: `/`, `/1.0`, its resources, its operations and its events."""

from __future__ import annotations

from lxdsched.sandbox.answers import Answer, LXDError, Operation, done, listing, sync
from lxdsched.sandbox.bodies import Shape, is_object
from lxdsched.sandbox.events import INCUS
from lxdsched.sandbox.questions import Question, Subscription, forbidden
from lxdsched.sandbox.records import Row, ordered
from lxdsched.sandbox.state import ServerState

_SERVER_PUT = Shape("ServerPut", {"config": is_object})

_EVENT_TYPES = frozenset({"lifecycle", "logging", "operation"})

EXTENSIONS = (
    *("resources", "projects", "clustering", "event_lifecycle", "event_location", "instances", "resources_v2"),
    *("resources_cpu_socket", "resources_numa", "resources_system", "api_filtering", "virtual-machines"),
    *("certificate_project", "clustering_evacuation", "clustering_config", "instance_all_projects", "event_project"),
)
_VERSIONS = {"lxd": "5.0.2", INCUS: "6.0.4"}


def show_versions(question: Question) -> Answer:
    """`GET /`: open to everyone."""
    del question
    return listing(["/1.0"])


def show_server(question: Question) -> Answer:
    """`GET /1.0`: open to everyone, but silent about the machine to whom it does not trust."""
    state, caller = question.state, question.caller
    incus = state.flavour == INCUS
    row: Row = {
        "api_extensions": EXTENSIONS,
        "api_status": "stable",
        "api_version": "1.0",
        "auth": "trusted" if caller.trusted else "untrusted",
        "public": False,
        "auth_methods": ["tls"],
    }
    if not caller.trusted:
        return sync({"config": {}} | row if incus else row)
    hidden: Row | None = {} if incus else None
    row = {"config": hidden if caller.restricted else state.config} | row
    if incus:
        row |= {"auth_user_name": caller.fingerprint, "auth_user_method": "tls"}
    return sync(row | {"environment": _environment(state)})


def _environment(state: ServerState) -> Row:
    virtual_machines = state.hardware.virtual_machines
    return {
        "addresses": [state.address],
        "architectures": state.hardware.architectures,
        "certificate": state.server_certificate,
        "certificate_fingerprint": state.server_fingerprint,
        "driver": "lxc | qemu" if virtual_machines else "lxc",
        "driver_version": "5.0.2 | 7.2.22" if virtual_machines else "5.0.2",
        "firewall": "nftables",
        "kernel": "Linux",
        "kernel_architecture": state.hardware.architectures[0],
        "kernel_features": {},
        "kernel_version": "6.1.0",
        "lxc_features": {},
        "os_name": "Debian GNU/Linux",
        "os_version": "12",
        "project": "default",
        "server": state.flavour,
        "server_clustered": state.clustered,
        "server_event_mode": "full-mesh",
        "server_name": state.name,
        "server_pid": 1,
        "server_version": _VERSIONS[state.flavour],
        "storage": "dir",
        "storage_version": "1",
        "storage_supported_drivers": [{"Name": "dir", "Version": "1", "Remote": False}],
    }


def update_server(question: Question) -> Answer:
    """`PATCH` and `PUT /1.0`: set the server's configuration. Neither drops a `user.*` key that is not given: only an
    empty value does, as in LXD.
    """
    question.require_unrestricted()
    config = _SERVER_PUT.read(question.body).object("config")
    accepted: dict[str, str] = {}
    for key, value in config.items():
        if not isinstance(value, str):
            kind = "bool" if isinstance(value, bool) else "float64"
            raise LXDError(400, f"cannot set '{key}': invalid type {kind}")
        if not key.startswith(("user.", "core.", "cluster.", "images.", "backups.", "instances.")):
            raise LXDError(400, f"cannot set '{key}' to '{value}': unknown key")
        if not key.endswith(".https_address"):
            accepted[key] = value
    question.database.configure(accepted, question.cause)
    return done()


def show_resources(question: Question) -> Answer:
    """`GET /1.0/resources`, of the member named by `target` in a cluster."""
    target = question.arguments.get("target")
    member = question.member(target) if target else question.state
    return Answer(200, member.hardware.answer)


# Operations


def show_operations(question: Question) -> Answer:
    """`GET /1.0/operations`: grouped by how they ended."""
    groups: dict[str, list[object]] = {}
    for operation in question.state.operations():
        shown = operation.row() if question.recursion else operation.url
        groups.setdefault(operation.outcome, []).append(shown)
    return sync(ordered(groups))


def show_operation(question: Question) -> Answer:
    """`GET /1.0/operations/ID`, and with `/wait` the same: every operation has ended when it is first told of."""
    operation: Operation = question.state.operation(question.names["uuid"])
    return sync(operation.row())


# Events


def open_events(question: Question) -> Subscription:
    """`GET /1.0/events`: of one project or, with `all-projects`, of all. LXD hides none from a restricted caller.

    Of the types that LXD has the sandbox sends `lifecycle` alone.
    """
    incus = question.state.flavour == INCUS
    if question.all_projects and "project" in question.arguments:
        raise LXDError(400 if incus else 500, "Cannot specify a project when requesting all projects")
    if question.project not in question.database.projects:
        raise LXDError(404 if incus else 500, "Project not found")
    types = question.arguments.get("type", "").split(",")
    if types == [""]:
        types = sorted(_EVENT_TYPES)
    for each in types:
        if each not in _EVENT_TYPES:
            raise LXDError(400 if incus else 500, f'"{each}" isn\'t a supported event type')
    if "lifecycle" not in types:
        return Subscription(())
    if incus and question.caller.restricted:
        if not question.all_projects and not question.caller.may_use(question.project):
            raise forbidden()
        return Subscription(question.caller.projects if question.all_projects else (question.project,))
    return Subscription(None if question.all_projects else (question.project,))
