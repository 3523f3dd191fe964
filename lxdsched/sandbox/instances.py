"""The endpoints of instances: `/1.0/instances` and `/1.0/instances/NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lxdsched.sandbox.answers import Answer, LXDError, done, in_project, listing, new_uuid, sync, sync_body
from lxdsched.sandbox.bodies import (
    Body,
    Shape,
    is_devices,
    is_flag,
    is_object,
    is_text,
    is_text_map,
    is_texts,
)
from lxdsched.sandbox.cluster import place, relocate
from lxdsched.sandbox.database import Database
from lxdsched.sandbox.events import INCUS
from lxdsched.sandbox.questions import Question, forbidden
from lxdsched.sandbox.records import Instance, Status, ordered, volatile
from lxdsched.sandbox.validate import check_instance_config, check_instance_name

_PUT_FIELDS = {
    "architecture": is_text,
    "config": is_text_map,
    "devices": is_devices,
    "ephemeral": is_flag,
    "profiles": is_texts,
    "stateful": is_flag,
    "description": is_text,
}
_POST = Shape("InstancesPost", _PUT_FIELDS | {"name": is_text, "source": is_object, "type": is_text})
_PUT = Shape("InstancePut", _PUT_FIELDS)
_PATCH = Shape("InstancePut", _PUT_FIELDS, "shared.Jmap")
_RENAME = Shape("InstancePost", {"name": is_text, "migration": is_flag, "live": is_flag})

_SOURCES = frozenset({"image", "none", "migration", "copy"})
_KINDS = {"": "container", "container": "container", "virtual-machine": "virtual-machine"}
_ARCHITECTURES = frozenset(
    {"i686", "x86_64", "armv7l", "aarch64", "ppc", "ppc64", "ppc64le", "s390x", "mips", "mips64", "riscv32", "riscv64"}
)
_DEVICES = frozenset(
    {
        *("none", "nic", "disk", "unix-char", "unix-block", "unix-hotplug"),
        *("usb", "gpu", "infiniband", "proxy", "tpm", "pci"),
    }
)


def show_all(question: Question) -> Answer:
    """`GET /1.0/instances`: addresses in the order of their making, or rows by name."""
    database = question.database
    projects: frozenset[str] | None
    if question.all_projects:
        if "project" in question.arguments:
            raise LXDError(400, "Cannot specify a project when requesting all projects")
        projects = None
        if question.caller.restricted:
            if question.state.flavour != INCUS:
                raise forbidden()
            projects = question.caller.projects
    else:
        projects = frozenset({question.project})
        if not question.caller.may_use(question.project):
            if question.state.flavour == INCUS:
                raise LXDError(500, f'User does not have permissions for project "{question.project}"')
            raise forbidden()
    if not question.recursion:
        chosen = database.selected(projects)
        return listing([in_project(f"/1.0/instances/{each.name}", each.project) for each in chosen])
    full = question.recursion > 1

    def render() -> bytes:
        chosen = sorted(database.selected(projects), key=lambda instance: instance.name)
        return sync_body([database.show(each) | (_extras(each) if full else {}) for each in chosen])

    return Answer(200, database.rendered(("instances", projects, full), render))


def _extras(instance: Instance) -> dict[str, object]:
    return {"backups": None, "state": instance.show_state(), "snapshots": None}


def create(question: Question) -> Answer:
    """`POST /1.0/instances`: whatever its source is, the instance is there at once, and stopped."""
    project = question.allowed_project()
    body = _POST.read(question.body)
    state, database = question.state, question.database
    if project not in database.projects:
        raise LXDError(404, "Failed loading project: Project not found")
    location = place(state, question.arguments.get("target", ""))
    if (source := str(body.object("source").get("type", ""))) not in _SOURCES:
        raise LXDError(400, f"Unknown source type {source}")
    if (kind := _KINDS.get(body.text("type"))) is None:
        raise LXDError(400, "Invalid instance type")
    architecture = body.text("architecture") or state.hardware.architectures[0]
    if architecture not in _ARCHITECTURES:
        raise LXDError(500, f"Architecture isn't supported: {architecture}")
    name = body.text("name") or f"sandbox-{new_uuid()[:8]}"
    check_instance_name(name)
    profiles = body.texts("profiles") if body.given("profiles") else ("default",)
    for profile in profiles:
        if (database.profile_project(project), profile) not in database.profiles:
            raise LXDError(500, f'Requested profile "{profile}" doesn\'t exist')
    instance = Instance(
        name=name,
        project=project,
        location=location,
        config=ordered(volatile(new_uuid(), new_uuid()) | body.text_map("config")),
        devices=ordered({name: ordered(device) for name, device in body.devices("devices").items()}),
        profiles=profiles,
        status=Status.STOPPED,
        created_at=state.now(),
        kind=kind,
        architecture=architecture,
        ephemeral=body.flag("ephemeral"),
        stateful=body.flag("stateful"),
        description=body.text("description"),
    )

    def work() -> None:
        try:
            _check_kind(database, instance)
            _check_new(database, instance)
        except LXDError as problem:
            raise LXDError(400, f"Failed creating instance record: {problem.message}") from None
        database.put_instance(instance, "instance-created", question.cause)

    return state.run("Creating instance", _resources(instance), work).answer()


def _check_kind(database: Database, instance: Instance) -> None:
    hardware = database.members[instance.location].hardware
    if instance.kind == "virtual-machine" and not hardware.virtual_machines:
        problem = "vhost_vsock kernel module not loaded"
        raise LXDError(400, f'Instance type "{instance.kind}" is not supported on this server: {problem}')


def _check_new(database: Database, instance: Instance) -> None:
    check_instance_config(instance.config)
    for device in instance.devices.values():
        if device.get("type") not in _DEVICES:
            raise LXDError(400, f"Invalid device type {device.get('type', '')}")
    if len(set(instance.profiles)) != len(instance.profiles):
        raise LXDError(400, "Duplicate profile found in request")
    if (instance.project, instance.name) in database.instances:
        raise LXDError(400, 'Add instance info to the database: This "instances" entry already exists')
    devices = dict(instance.devices)
    for profile in database.profiles_of(instance):
        devices |= profile.devices
    if not any(device.get("type") == "disk" and device.get("path") == "/" for device in devices.values()):
        stage = "Invalid devices: Failed detecting root disk device" if devices else "Failed getting root disk"
        raise LXDError(400, f"Failed initialising instance: {stage}: No root device could be found")


def show(question: Question) -> Answer:
    """`GET /1.0/instances/NAME`."""
    return sync(question.database.show(found(question)))


def found(question: Question) -> Instance:
    """The instance that a path names; raises a 403 or a 404 LXDError."""
    return question.database.instance(question.allowed_project(), question.names["name"])


def patch(question: Question) -> Answer:
    """`PATCH /1.0/instances/NAME`: given keys join the others, empty ones go; done before the answer."""
    instance = found(question)
    body = _PATCH.read(question.body)
    changed = _updated(
        question,
        instance,
        body,
        config=dict(instance.config) | body.text_map("config"),
        devices=dict(instance.devices) | body.devices("devices"),
        profiles=body.texts("profiles") if "profiles" in body else instance.profiles,
    )
    try:
        check_instance_config(changed.config)
    except LXDError as problem:
        raise LXDError(500, f"Invalid config: {problem.message}") from None
    # Not even Incus says who has asked for that.
    question.database.put_instance(changed)
    return done()


def put(question: Question) -> Answer:
    """`PUT /1.0/instances/NAME`: everything anew, in the background."""
    instance = found(question)
    body = _PUT.read(question.body)
    config = body.text_map("config")
    changed = _updated(
        question, instance, body, config=config, devices=body.devices("devices"), profiles=body.texts("profiles")
    )

    def work() -> None:
        try:
            check_instance_config(changed.config)
        except LXDError as problem:
            raise LXDError(400, f"Invalid config: {problem.message}") from None
        if any(key.startswith("volatile.idmap.") and key not in config for key in instance.config):
            raise LXDError(400, "Volatile idmap keys can't be deleted by the user")
        question.database.put_instance(changed, cause=question.cause)

    return question.state.run("Updating instance", _resources(instance), work).answer()


def _updated(
    question: Question,
    instance: Instance,
    body: Body,
    *,
    config: Mapping[str, str],
    devices: Mapping[str, Mapping[str, str]],
    profiles: tuple[str, ...],
) -> Instance:
    project = question.database.profile_project(instance.project)
    if any((project, profile) not in question.database.profiles for profile in profiles):
        raise LXDError(404, "Profile not found")
    return replace(
        instance,
        architecture=body.text("architecture") or instance.architecture,
        config=ordered(config),
        devices=ordered(devices),
        profiles=profiles,
        ephemeral=body.flag("ephemeral") if "ephemeral" in body else instance.ephemeral,
        # LXD 5.0 forgets the description when a PATCH does not repeat it.
        description=body.text("description"),
        row=None,
    )


def rename(question: Question) -> Answer:
    """`POST /1.0/instances/NAME`: another name for a stopped instance, or another member of the cluster for any."""
    body = _RENAME.read(question.body)
    name, target = body.text("name"), question.arguments.get("target", "")
    if target and target not in (question.database.members if question.state.clustered else ()):
        raise LXDError(404, "Failed to get target node: Cluster member not found")
    instance = found(question)
    if target and body.flag("migration"):
        return _migrate(question, instance, name, target)
    check_instance_name(name)
    database = question.database
    if (instance.project, name) in database.instances:
        raise LXDError(409, f'Name "{name}" already in use')

    def work() -> None:
        if instance.status.up:
            raise LXDError(400, "Renaming of running container not allowed")
        database.rename_instance(instance, name, question.cause)

    return question.state.run("Renaming instance", _resources(instance), work).answer()


def _migrate(question: Question, instance: Instance, name: str, target: str) -> Answer:
    def work() -> None:
        if target == instance.location:
            raise LXDError(400, "Target must be different than instance's current location")
        if question.state.flavour == INCUS and instance.status.up:
            raise LXDError(400, "Instance must be stopped to be moved statelessly")
        moved = replace(instance, name=name or instance.name, location=target)
        relocate(question.state, instance, moved, question.cause)

    return question.state.run("Migrating instance", _resources(instance), work).answer()


def delete(question: Question) -> Answer:
    """`DELETE /1.0/instances/NAME`, which must be stopped."""
    instance = found(question)
    if instance.status.up:
        raise LXDError(400, "Instance is running")
    database = question.database

    def work() -> None:
        database.remove_instance(instance.project, instance.name, question.cause)

    return question.state.run("Deleting instance", _resources(instance), work).answer()


def _resources(instance: Instance) -> dict[str, list[str]]:
    urls = {"instances": [f"/1.0/instances/{instance.name}"]}
    if instance.kind == "container":
        urls = {"containers": [f"/1.0/containers/{instance.name}"]} | urls
    return urls
