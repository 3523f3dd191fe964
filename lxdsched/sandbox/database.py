"""What LXD keeps in its database: one server's own, or the one that all members of a cluster share.

Tests reach behind the API through the same methods: nothing here validates what it stores.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from lxdsched.sandbox.answers import LXDError, in_project, utc_now
from lxdsched.sandbox.events import INCUS, UNASKED, Cause, Event, Requestor
from lxdsched.sandbox.records import (
    ROOT_DISK,
    Config,
    Instance,
    Profile,
    Project,
    Row,
    TrustedCertificate,
    ordered,
)

if TYPE_CHECKING:
    from lxdsched.sandbox.state import ServerState

_FEATURES = {"features.images": "true", "features.profiles": "true", "features.storage.volumes": "true"}


class Database:
    """What one server, or all members of a cluster together, remember.

    `config` holds the server configuration that a cluster shares, which is where `user.*` keys live.
    """

    def __init__(self, *, clustered: bool = False) -> None:
        self.clustered = clustered
        self.members: dict[str, ServerState] = {}
        self.projects: dict[str, Project] = {}
        self.profiles: dict[tuple[str, str], Profile] = {}
        self.instances: dict[tuple[str, str], Instance] = {}
        self.certificates: dict[str, TrustedCertificate] = {}
        self.config: dict[str, str] = {}
        self._rendered: dict[object, bytes] = {}
        self._listeners: list[Callable[[Event], None]] = []
        self.add_project("default", {"features.networks": "true"}, "Default LXD project")
        self.put_profile(Profile("default", "default", {}, ROOT_DISK, "Default LXD profile"))

    def listen(self, hear: Callable[[Event], None]) -> None:
        """Call `hear` with every event, at once, for as long as this database lasts."""
        self._listeners.append(hear)

    def changed(
        self,
        action: str,
        source: str,
        cause: Cause = UNASKED,
        *,
        project: str = "default",
        name: str = "",
        context: Mapping[str, object] | None = None,
    ) -> None:
        """Tell that something changed. Every event passes here: `action` and `source` are LXD's words for it.

        `cause.location` is the member that tells it; for the rest see `Event`.
        """
        self.touched()
        if self._listeners:
            location = cause.location or next(iter(self.members), "none")
            at = self.members[location].now() if location in self.members else utc_now()
            event = Event(action, source, project, location, at, cause.requestor, name, context or {})
            for hear in self._listeners:
                hear(event)

    def touched(self) -> None:
        """Note that something changed of which LXD tells nobody: the rendered listings are dropped."""
        self._rendered.clear()

    def rendered(self, key: object, render: Callable[[], bytes]) -> bytes:
        """The bytes under `key`, rendered once between two changes: listings are asked for far more often."""
        if key not in self._rendered:
            self._rendered[key] = render()
        return self._rendered[key]

    # Projects and profiles

    def add_project(
        self, name: str, config: Config | None = None, description: str = "", cause: Cause = UNASKED
    ) -> Project:
        """Store a project; its features are on unless `config` says otherwise, as LXD has it."""
        project = Project(name, ordered(_FEATURES | dict(config or {})), description)
        self.projects[name] = project
        if project.own_profiles and (name, "default") not in self.profiles:
            default = Profile("default", name, description=f"Default LXD profile for project {name}")
            self.profiles[name, "default"] = default
        self.changed("project-created", f"/1.0/projects/{name}", cause, project=name)
        return project

    def remove_project(self, name: str, cause: Cause = UNASKED) -> None:
        """Forget a project and its default profile."""
        del self.projects[name]
        self.profiles.pop((name, "default"), None)
        self.changed("project-deleted", f"/1.0/projects/{name}", cause, project=name)

    def profile_project(self, project: str) -> str:
        """The project whose profiles the instances of `project` use; raises KeyError for an unknown one."""
        return project if self.projects[project].own_profiles else "default"

    def put_profile(self, profile: Profile, cause: Cause = UNASKED, *, everywhere: bool = True) -> None:
        """Store a profile, new or changed. Every instance that has it changes with it.

        Each tells so, or without `everywhere` only those at the member that was asked.
        """
        known = (profile.project, profile.name) in self.profiles
        self.profiles[profile.project, profile.name] = profile
        for instance in self.users_of(profile):
            if everywhere or instance.location == cause.location:
                self.tell("instance-updated", instance)
        self._tell_profile("updated" if known else "created", profile.project, profile.name, cause)

    def remove_profile(self, project: str, name: str, cause: Cause = UNASKED) -> None:
        """Forget a profile."""
        del self.profiles[project, name]
        self._tell_profile("deleted", project, name, cause)

    def _tell_profile(self, what: str, project: str, name: str, cause: Cause) -> None:
        self.changed(f"profile-{what}", in_project(f"/1.0/profiles/{name}", project), cause, project=project)

    def users_of(self, profile: Profile) -> list[Instance]:
        """The instances that have a profile."""
        return [
            instance
            for instance in self.instances.values()
            if profile.name in instance.profiles
            and instance.project in self.projects
            and self.profile_project(instance.project) == profile.project
        ]

    # The trust store

    def trust(self, entry: TrustedCertificate, cause: Cause = UNASKED) -> None:
        """Store a certificate."""
        self.certificates[entry.fingerprint] = entry
        self._tell_certificate("created", entry.fingerprint, cause)

    def distrust(self, fingerprint: str, cause: Cause = UNASKED, *, called: str = "") -> None:
        """Forget a certificate, which the request named by `called`, a part of its fingerprint."""
        del self.certificates[fingerprint]
        self._tell_certificate("deleted", called or fingerprint, cause)

    def _tell_certificate(self, what: str, name: str, cause: Cause) -> None:
        asked = cause.location or next(iter(self.members), "none")
        others = [member for member in self.members if member != asked]
        # Every member of a cluster keeps the certificates, and tells of its own change.
        for each in [*(Cause(member, Requestor()) for member in others), Cause(asked, cause.requestor)]:
            self.changed(f"certificate-{what}", f"/1.0/certificates/{name}", each)

    # The configuration

    def configure(self, config: Config, cause: Cause = UNASKED) -> None:
        """Set keys of the shared server configuration; an empty value takes one away."""
        self.config = ordered(self.config | dict(config))
        self.changed("config-updated", "/1.0", cause)

    # Instances

    def instance(self, project: str, name: str) -> Instance:
        """One instance; raises a 404 LXDError when there is none."""
        try:
            return self.instances[project, name]
        except KeyError:
            raise LXDError(404, "Instance not found") from None

    def put_instance(
        self, instance: Instance, action: str | None = "instance-updated", cause: Cause = UNASKED
    ) -> Instance:
        """Store an instance, new or changed. With None for an `action` nobody is told."""
        self.instances[instance.project, instance.name] = instance
        self.touched()
        if action is not None:
            self.tell(action, instance, cause, _created(instance) if action == "instance-created" else None)
        return instance

    def rename_instance(self, instance: Instance, name: str, cause: Cause = UNASKED) -> None:
        """Give an instance another name. It keeps its place in the order of their making."""
        renamed = replace(instance, name=name, row=None)
        self._replace(instance, renamed)
        self.tell("instance-renamed", renamed, cause, {"old_name": instance.name})

    def move_instance(self, instance: Instance, moved: Instance, cause: Cause, flavour: str) -> None:
        """Let `moved` take an instance's place at another member. Only Incus tells of a move as such."""
        self._replace(instance, moved)
        if flavour == INCUS:
            left = replace(moved, location=instance.location)
            if moved.name != instance.name:
                self.tell("instance-renamed", left, cause, {"old_name": instance.name})
            self.tell("instance-migrated", left, cause)
            return
        # LXD makes a copy there, under another name while the original has its own.
        interim = moved
        if moved.name == instance.name:
            interim = replace(moved, name=f"lxd-move-of-{moved.config.get('volatile.uuid', moved.name)}")
        self.tell("instance-created", interim, cause, _created(moved))
        self.tell("instance-deleted", instance, cause)
        if interim.name != moved.name:
            self.tell("instance-renamed", moved, cause, {"old_name": interim.name})

    def remove_instance(self, project: str, name: str, cause: Cause = UNASKED) -> None:
        """Forget an instance."""
        self.tell("instance-deleted", self.instances.pop((project, name)), cause)

    def _replace(self, old: Instance, new: Instance) -> None:
        everything = (new if each is old else each for each in self.instances.values())
        self.instances = {(each.project, each.name): each for each in everything}

    def tell(
        self, action: str, instance: Instance, cause: Cause = UNASKED, context: Mapping[str, object] | None = None
    ) -> None:
        """Tell of an instance; it is always the member that holds it who tells."""
        self.changed(
            action,
            in_project(f"/1.0/instances/{instance.name}", instance.project),
            Cause(instance.location, cause.requestor),
            project=instance.project,
            name=instance.name,
            context=context,
        )

    def selected(self, projects: Collection[str] | None) -> list[Instance]:
        """The instances of some projects, or all, oldest first."""
        everything = self.instances.values()
        return [instance for instance in everything if projects is None or instance.project in projects]

    def profiles_of(self, instance: Instance) -> Iterable[Profile]:
        """The profiles of an instance that exist, in their order."""
        if instance.project not in self.projects:
            return []
        project = self.profile_project(instance.project)
        found = (self.profiles.get((project, name)) for name in instance.profiles)
        return [profile for profile in found if profile is not None]

    def show(self, instance: Instance) -> Row:
        """The row of an instance, as any member tells it."""
        member = self.members.get(instance.location)
        if member is not None and member.offline:
            return instance.show_unreachable()
        return instance.show(self.profiles_of(instance))


def _created(instance: Instance) -> Mapping[str, object]:
    return {"storage-pool": "default", "type": instance.kind}
