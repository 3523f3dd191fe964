"""The endpoints of the server itself: `/`, `/1.0`, its resources, its operations and its cluster."""

from __future__ import annotations

from dataclasses import replace

from lxdsched.sandbox.answers import Answer, LXDError, Operation, done, listing, sync
from lxdsched.sandbox.bodies import Shape, is_object, is_text, is_text_map, is_texts
from lxdsched.sandbox.instances import least_loaded
from lxdsched.sandbox.questions import Question
from lxdsched.sandbox.records import Row, ordered
from lxdsched.sandbox.state import INCUS, ServerState

_SERVER_PUT = Shape("ServerPut", {"config": is_object})
_MEMBER_PUT = Shape("ClusterMemberPut", {"config": is_text_map, "roles": is_texts})
_MEMBER_STATE_POST = Shape("ClusterMemberStatePost", {"action": is_text})

_ORIGIN = "volatile.evacuate.origin"

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
    question.database.config = ordered(question.database.config | accepted)
    question.database.changed("config-updated", "/1.0")
    return done()


def show_resources(question: Question) -> Answer:
    """`GET /1.0/resources`, of the member named by `target` in a cluster."""
    target = question.arguments.get("target")
    member = _member(question, target) if target else question.state
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


# The cluster


def show_cluster(question: Question) -> Answer:
    """`GET /1.0/cluster`."""
    state = question.state
    pool = {
        "entity": "storage-pool",
        "name": "default",
        "key": "source",
        "value": "",
        "description": '"source" property for storage pool "default"',
    }
    name = state.name if state.clustered else ""
    return sync({"server_name": name, "enabled": state.clustered, "member_config": [pool]})


def _member(question: Question, name: str) -> ServerState:
    members = question.database.members
    if not question.state.clustered or name not in members:
        raise LXDError(404, "Cluster member not found")
    return members[name]


def _require_cluster(question: Question) -> None:
    if not question.state.clustered:
        raise LXDError(500, "Server is not clustered")


def _show_member(member: ServerState) -> Row:
    first = next(iter(member.database.members.values()))
    messages = {
        "Online": "Fully operational",
        "Evacuated": "Unavailable due to maintenance",
        "Offline": "No heartbeat for 46.581561638s",
        "Blocked": "Cluster member is blocked by another one's version",
    }
    return {
        "roles": ["database-leader", "database"] if member is first else ["database"],
        "failure_domain": "default",
        "description": "",
        "config": ordered(member.member_config),
        "groups": ["default"],
        "server_name": member.name,
        "url": f"https://{member.address}",
        "database": True,
        "status": member.member_status,
        "message": messages.get(member.member_status, ""),
        "architecture": member.hardware.architectures[0],
    }


def show_members(question: Question) -> Answer:
    """`GET /1.0/cluster/members`."""
    _require_cluster(question)
    members = question.database.members.values()
    if question.recursion:
        return sync([_show_member(member) for member in members])
    return listing([f"/1.0/cluster/members/{member.name}" for member in members])


def show_member(question: Question) -> Answer:
    """`GET /1.0/cluster/members/NAME`."""
    _require_cluster(question)
    return sync(_show_member(_member(question, question.names["name"])))


def update_member(question: Question) -> Answer:
    """`PUT` and `PATCH /1.0/cluster/members/NAME`: its configuration. LXD wants its roles repeated in either."""
    question.require_unrestricted()
    _require_cluster(question)
    member = _member(question, question.names["name"])
    body = _MEMBER_PUT.read(question.body)
    if "database" not in body.texts("roles"):
        raise LXDError(400, 'The "database" role cannot be dropped at this time')
    member.member_config = ordered(body.text_map("config"))
    member.database.changed("cluster-member-updated", f"/1.0/cluster/members/{member.name}")
    return done()


def update_member_state(question: Question) -> Answer:
    """`POST /1.0/cluster/members/NAME/state`: evacuate a member, or restore it."""
    question.require_unrestricted()
    _require_cluster(question)
    member = _member(question, question.names["name"])
    action = _MEMBER_STATE_POST.read(question.body).text("action")
    if action == "evacuate":
        return question.state.run("Evacuating cluster member", None, lambda: _evacuate(member)).answer()
    if action == "restore":
        return question.state.run("Restoring cluster member", None, lambda: _restore(member)).answer()
    raise LXDError(400, f'Unknown action "{action}"')


def _evacuate(member: ServerState) -> None:
    """Move what is there to other members, whatever `mode` the request named: LXD 5.0 knows no modes yet."""
    if member.member_status == "Evacuated":
        raise LXDError(400, "Cluster member is already evacuated")
    member.member_status = "Evacuated"
    database = member.database
    others = [name for name, other in database.members.items() if other.member_status == "Online"]
    for instance in list(database.instances.values()):
        if instance.location == member.name and others:
            config = ordered(dict(instance.config) | {_ORIGIN: member.name})
            location = least_loaded(database, others)
            database.put_instance(replace(instance, location=location, config=config), "instance-migrated")


def _restore(member: ServerState) -> None:
    if member.member_status != "Evacuated":
        raise LXDError(400, "Cluster member not evacuated")
    member.member_status = "Online"
    for instance in list(member.database.instances.values()):
        if instance.config.get(_ORIGIN) == member.name:
            config = {key: value for key, value in instance.config.items() if key != _ORIGIN}
            back = replace(instance, location=member.name, config=config)
            member.database.put_instance(back, "instance-migrated")
