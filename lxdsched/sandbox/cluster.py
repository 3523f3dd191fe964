"""The endpoints of a cluster: its members, and what makes instances move from one to another."""

from __future__ import annotations

from dataclasses import replace

from lxdsched.sandbox.answers import Answer, LXDError, done, listing, sync, timestamp
from lxdsched.sandbox.bodies import Shape, is_text, is_text_map, is_texts
from lxdsched.sandbox.database import Database
from lxdsched.sandbox.events import INCUS, UNASKED, Cause
from lxdsched.sandbox.questions import Question
from lxdsched.sandbox.records import Config, Instance, Row, ordered
from lxdsched.sandbox.state import ServerState

_MEMBER_PUT = Shape(
    "ClusterMemberPut", {"config": is_text_map, "roles": is_texts, "groups": is_texts, "failure_domain": is_text}
)
_MEMBER_STATE_POST = Shape("ClusterMemberStatePost", {"action": is_text})

_ORIGIN = "volatile.evacuate.origin"
_SCHEDULING = frozenset({"all", "group", "manual"})


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


def _require_cluster(question: Question) -> None:
    if not question.state.clustered:
        raise LXDError(500, "Server is not clustered")


def _show_member(member: ServerState) -> Row:
    first = next(iter(member.database.members.values()))
    messages = {
        "Online": "Fully operational",
        "Evacuated": "Unavailable due to maintenance",
        "Offline": f"No heartbeat for 46.581561638s ({timestamp(member.now())[:19].replace('T', ' ')} +0000 UTC)",
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
    return sync(_show_member(question.member(question.names["name"])))


def put_member(question: Question) -> Answer:
    """`PUT /1.0/cluster/members/NAME`: its configuration anew. LXD wants everything else repeated."""
    return _store_member(question, {})


def patch_member(question: Question) -> Answer:
    """`PATCH /1.0/cluster/members/NAME`: given keys join the others. LXD wants everything else repeated here, too."""
    _require_cluster(question)
    return _store_member(question, question.member(question.names["name"]).member_config)


def _store_member(question: Question, kept: Config) -> Answer:
    question.require_unrestricted()
    _require_cluster(question)
    member = question.member(question.names["name"])
    body = _MEMBER_PUT.read(question.body)
    if "database" not in body.texts("roles"):
        raise LXDError(400, 'The "database" role cannot be dropped at this time')
    if not body.texts("groups"):
        raise LXDError(400, "Cluster members need to belong to at least one group")
    config = body.text_map("config")
    for key, value in config.items():
        if key != "scheduler.instance" and not key.startswith("user."):
            raise LXDError(500, f'Invalid cluster configuration key "{key}"')
        if key == "scheduler.instance" and value not in _SCHEDULING:
            raise LXDError(500, f'Invalid cluster configuration key "{key}" value')
    if not body.text("failure_domain"):
        raise LXDError(500, "Update failure domain: Failure domain name can't be empty")
    member.member_config = ordered(dict(kept) | config)
    member.database.changed("cluster-member-updated", f"/1.0/cluster/members/{member.name}", question.cause)
    return done()


def update_member_state(question: Question) -> Answer:
    """`POST /1.0/cluster/members/NAME/state`: evacuate a member, or restore it."""
    question.require_unrestricted()
    member = question.member(question.names["name"])
    action = _MEMBER_STATE_POST.read(question.body).text("action")
    if action == "evacuate":
        return member.run("Evacuating cluster member", None, lambda: _evacuate(member, question.cause)).answer()
    if action == "restore":
        return member.run("Restoring cluster member", None, lambda: _restore(member, question.cause)).answer()
    raise LXDError(400, f'Unknown action "{action}"')


def _evacuate(member: ServerState, cause: Cause) -> None:
    """Move what is there to other members, whatever `mode` the request named: LXD 5.0 knows no modes yet."""
    if member.member_status == "Evacuated":
        raise LXDError(400, "Cluster member is already evacuated")
    member.member_status = "Evacuated"
    database = member.database
    others = [name for name, other in database.members.items() if other.member_status == "Online"]
    for instance in list(database.instances.values()):
        if instance.location == member.name and others:
            marked = replace(instance, config=ordered(dict(instance.config) | {_ORIGIN: member.name}))
            relocate(member, instance, replace(marked, location=least_loaded(database, others)))
    _tell_service(member, "evacuated", cause)


def _restore(member: ServerState, cause: Cause) -> None:
    if member.member_status != "Evacuated":
        raise LXDError(400, "Cluster member is already restored")
    member.member_status = "Online"
    for instance in list(member.database.instances.values()):
        if instance.config.get(_ORIGIN) == member.name:
            config = {key: value for key, value in instance.config.items() if key != _ORIGIN}
            relocate(member, instance, replace(instance, location=member.name, config=config))
    _tell_service(member, "restored", cause)


def _tell_service(member: ServerState, what: str, cause: Cause) -> None:
    # LXD keeps silent: whoever must know has to ask.
    if member.flavour == INCUS:
        told = Cause(member.location, cause.requestor)
        member.database.changed(f"cluster-member-{what}", f"/1.0/cluster/members/{member.name}", told)


def relocate(state: ServerState, instance: Instance, moved: Instance, cause: Cause = UNASKED) -> None:
    """Let `moved` take the place of an instance at another member: a running one is stopped and started again."""
    database, running = state.database, instance.status.up
    if running:
        database.tell("instance-shutdown", instance)
    if state.flavour != INCUS:
        # What arrives is a new copy to LXD.
        moved = replace(moved, created_at=state.now())
    database.move_instance(instance, moved, cause, state.flavour)
    if running:
        database.tell("instance-started", moved)


def place(state: ServerState, target: str) -> str:
    """Where a new instance goes: to the target, else to the member with the fewest instances, as LXD does."""
    if not state.clustered:
        if target:
            raise LXDError(400, "Target only allowed when clustered")
        return state.location
    members = state.database.members
    if target:
        if target not in members:
            raise LXDError(404, "Cluster member not found")
        if members[target].member_status == "Evacuated":
            raise LXDError(403, "Cluster member is evacuated")
        return target
    return least_loaded(
        state.database,
        [
            name
            for name, member in members.items()
            if member.member_status == "Online" and member.member_config.get("scheduler.instance", "all") == "all"
        ],
    )


def least_loaded(database: Database, names: list[str]) -> str:
    """The member with the fewest instances; raises a 400 LXDError when there is none to choose from."""
    if not names:
        raise LXDError(400, "No suitable cluster member could be found")
    locations = [instance.location for instance in database.instances.values()]
    return min(names, key=locations.count)
