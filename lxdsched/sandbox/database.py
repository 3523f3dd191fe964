"""What LXD keeps in its database: one server's own, or the one that all members of a cluster share.

Tests reach behind the API through the same methods: nothing here validates what it stores.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from lxdsched.sandbox.answers import LXDError, in_project
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
        self.add_project("default", {"features.networks": "true"}, "Default LXD project")
        self.put_profile(Profile("default", "default", {}, ROOT_DISK, "Default LXD profile"))

    def changed(self, action: str, source: str) -> None:
        """Note that something changed. Every change passes here: `action` and `source` are LXD's words for its event.

        This is where an event stream would hang its listeners; today only the rendered listings are dropped.
        """
        del action, source
        self._rendered.clear()

    def rendered(self, key: object, render: Callable[[], bytes]) -> bytes:
        """The bytes under `key`, rendered once between two changes: listings are asked for far more often."""
        if key not in self._rendered:
            self._rendered[key] = render()
        return self._rendered[key]

    # Projects and profiles

    def add_project(self, name: str, config: Config | None = None, description: str = "") -> Project:
        """Store a project; its features are on unless `config` says otherwise, as LXD has it."""
        project = Project(name, ordered(_FEATURES | dict(config or {})), description)
        self.projects[name] = project
        if project.own_profiles and (name, "default") not in self.profiles:
            self.put_profile(Profile("default", name, description=f"Default LXD profile for project {name}"))
        self.changed("project-created", f"/1.0/projects/{name}")
        return project

    def remove_project(self, name: str) -> None:
        """Forget a project and its default profile."""
        del self.projects[name]
        self.profiles.pop((name, "default"), None)
        self.changed("project-deleted", f"/1.0/projects/{name}")

    def profile_project(self, project: str) -> str:
        """The project whose profiles the instances of `project` use; raises KeyError for an unknown one."""
        return project if self.projects[project].own_profiles else "default"

    def put_profile(self, profile: Profile) -> None:
        """Store a profile, new or changed. Every instance that has it changes with it."""
        known = (profile.project, profile.name) in self.profiles
        self.profiles[profile.project, profile.name] = profile
        source = in_project(f"/1.0/profiles/{profile.name}", profile.project)
        self.changed("profile-updated" if known else "profile-created", source)

    def remove_profile(self, project: str, name: str) -> None:
        """Forget a profile."""
        del self.profiles[project, name]
        self.changed("profile-deleted", in_project(f"/1.0/profiles/{name}", project))

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

    def trust(self, entry: TrustedCertificate) -> None:
        """Store a certificate."""
        self.certificates[entry.fingerprint] = entry
        self.changed("certificate-created", f"/1.0/certificates/{entry.fingerprint}")

    def distrust(self, fingerprint: str) -> None:
        """Forget a certificate."""
        del self.certificates[fingerprint]
        self.changed("certificate-deleted", f"/1.0/certificates/{fingerprint}")

    # Instances

    def instance(self, project: str, name: str) -> Instance:
        """One instance; raises a 404 LXDError when there is none."""
        try:
            return self.instances[project, name]
        except KeyError:
            raise LXDError(404, "Instance not found") from None

    def put_instance(self, instance: Instance, action: str = "instance-updated") -> Instance:
        """Store an instance, new or changed."""
        self.instances[instance.project, instance.name] = instance
        self.changed(action, in_project(f"/1.0/instances/{instance.name}", instance.project))
        return instance

    def rename_instance(self, instance: Instance, name: str) -> None:
        """Give an instance another name. It keeps its place in the order of their making."""
        renamed = replace(instance, name=name, row=None)
        self.instances = {
            (each.project, each.name): each
            for each in (renamed if each is instance else each for each in self.instances.values())
        }
        self.changed("instance-renamed", in_project(f"/1.0/instances/{name}", instance.project))

    def remove_instance(self, project: str, name: str) -> None:
        """Forget an instance."""
        del self.instances[project, name]
        self.changed("instance-deleted", in_project(f"/1.0/instances/{name}", project))

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
