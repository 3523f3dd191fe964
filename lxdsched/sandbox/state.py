"""The state of one simulated server, without any network.

A standalone `ServerState` has a `Database` for itself; the members of a cluster share one, so every member lists every
instance. Tests reach behind the API through the same methods: nothing here validates what it stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from lxdsched.sandbox.answers import LXDError, Operation, new_uuid, utc_now
from lxdsched.sandbox.database import Database
from lxdsched.sandbox.events import LXD
from lxdsched.sandbox.records import (
    Config,
    Devices,
    Hardware,
    Instance,
    Status,
    TrustedCertificate,
    ordered,
    volatile,
)

_REMEMBERED_OPERATIONS = 256

_TELLS = {
    Status.RUNNING: "instance-started",
    Status.STOPPED: "instance-shutdown",
    Status.FROZEN: "instance-paused",
}
"""What LXD says of an instance that has got into a state; of the other states it says nothing."""


@dataclass(frozen=True)
class Caller:
    """Who asks: what the trust store says about the certificate of a connection, and where it comes from."""

    trusted: bool = False
    restricted: bool = False
    projects: frozenset[str] = frozenset()
    fingerprint: str = ""
    address: str = ""

    def may_use(self, project: str) -> bool:
        """Whether this caller may touch what lives in a project."""
        return self.trusted and (not self.restricted or project in self.projects)


UNTRUSTED = Caller()


class ServerState:
    """One simulated server: alone, or a member of the cluster whose database it is given.

    `flavour` is `"lxd"` or `"incus"`, which differ in what a restricted certificate gets. `member_status` is the word
    that `/1.0/cluster/members` shows (`Online`, `Offline`, `Evacuated`, `Blocked`); `member_config` holds
    `scheduler.instance`. `now` tells the time.
    """

    def __init__(
        self,
        name: str,
        hardware: Hardware | None = None,
        *,
        database: Database | None = None,
        flavour: str = LXD,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.name = name
        self.hardware = hardware or Hardware()
        self.database = database or Database()
        self.flavour = flavour
        self.now = now
        self.address = ""
        self.server_certificate = ""
        self.server_fingerprint = ""
        self.member_config: dict[str, str] = {}
        self._member_status = "Online"
        self._operations: dict[str, Operation] = {}
        self.database.members[self.location] = self

    @property
    def clustered(self) -> bool:
        """Whether this server is a member of a cluster."""
        return self.database.clustered

    @property
    def location(self) -> str:
        """What rows say of the instances here: the member's name, or `none` outside a cluster."""
        return self.name if self.clustered else "none"

    @property
    def config(self) -> dict[str, str]:
        """The server configuration as `/1.0` shows it to a trusted client."""
        local = {"core.https_address": self.address}
        if self.clustered:
            local["cluster.https_address"] = self.address
        return ordered(local | self.database.config)

    @property
    def member_status(self) -> str:
        """The member's state in its cluster. LXD sends no event when it changes, whatever the cause."""
        return self._member_status

    @member_status.setter
    def member_status(self, status: str) -> None:
        self._member_status = status
        self.database.touched()

    @property
    def offline(self) -> bool:
        """Whether the other members cannot reach this one."""
        return self._member_status == "Offline"

    # The trust store

    def trust(
        self,
        certificate: x509.Certificate,
        *,
        restricted: bool = False,
        projects: Iterable[str] = (),
        name: str = "client",
    ) -> TrustedCertificate:
        """Trust a client certificate, fully or for some projects only."""
        entry = TrustedCertificate.of(certificate, name=name, restricted=restricted, projects=projects)
        self.database.trust(entry)
        return entry

    def distrust(self, fingerprint: str) -> None:
        """Trust a client certificate no longer, on connections that are open as well."""
        self.database.distrust(fingerprint)

    def caller(self, certificate: x509.Certificate | None, address: str = "") -> Caller:
        """Who a connection's certificate makes the caller, now. Outside its time a certificate is worth nothing."""
        if certificate is None:
            return UNTRUSTED
        entry = self.database.certificates.get(certificate.fingerprint(hashes.SHA256()).hex())
        if entry is None:
            return UNTRUSTED
        if not certificate.not_valid_before_utc <= self.now() <= certificate.not_valid_after_utc:
            return UNTRUSTED
        return Caller(True, entry.restricted, frozenset(entry.projects), entry.fingerprint, address)

    # Behind the API's back

    def add_instance(
        self,
        name: str,
        config: Config | None = None,
        *,
        project: str = "default",
        status: Status = Status.STOPPED,
        profiles: Iterable[str] = ("default",),
        devices: Devices | None = None,
        kind: str = "container",
    ) -> Instance:
        """Store an instance on this server, unchecked."""
        instance = Instance(
            name=name,
            project=project,
            location=self.location,
            config=ordered(volatile(new_uuid(), new_uuid()) | dict(config or {})),
            devices=dict(devices or {}),
            profiles=tuple(profiles),
            status=status,
            created_at=self.now(),
            kind=kind,
            architecture=self.hardware.architectures[0],
        )
        return self.database.put_instance(instance, "instance-created")

    def add_row(self, row: Mapping[str, object]) -> Instance:
        """Store a row to be listed exactly as it is, however odd. Its `name`, and `project` if any, identify it."""
        name, project = str(row["name"]), str(row.get("project", "default"))
        blank = Instance(name, project, self.location, {}, {}, (), Status.STOPPED, self.now())
        return self.database.put_instance(replace(blank, row=dict(row)), "instance-created")

    def set_status(self, name: str, status: Status, *, project: str = "default") -> Instance:
        """Put an instance into any state, as if it got there by itself: a guest that powers off is one."""
        instance = replace(self.database.instance(project, name), status=status, row=None)
        return self.database.put_instance(instance, _TELLS.get(status))

    # Operations

    def run(self, description: str, resources: dict[str, list[str]] | None, work: Callable[[], object]) -> Operation:
        """Do something as LXD does it in the background: a refusal becomes the operation's failure."""
        failure = None
        try:
            work()
        except LXDError as problem:
            failure = problem.message
        operation = Operation(description, resources, self.location, self.now(), failure, new_uuid())
        self._operations[operation.uuid] = operation
        # LXD forgets an operation seconds after its end; the sandbox when many others have come since.
        while len(self._operations) > _REMEMBERED_OPERATIONS:
            del self._operations[next(iter(self._operations))]
        return operation

    def operation(self, uuid: str) -> Operation:
        """One operation; raises a 404 LXDError when it is unknown or forgotten."""
        for member in self.database.members.values():
            if uuid in member._operations:  # noqa: SLF001 (members know each other)
                return member._operations[uuid]  # noqa: SLF001
        raise LXDError(404, "Operation not found")

    def operations(self) -> list[Operation]:
        """The operations remembered, oldest first."""
        return list(self._operations.values())
