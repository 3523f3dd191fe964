"""What a simulated server stores: frozen records, and the rows LXD shows for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from functools import cached_property
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from lxdsched.sandbox.answers import NEVER, sync_body, timestamp

GIB = 1024**3

ROOT_DISK: Mapping[str, Mapping[str, str]] = {"root": {"path": "/", "pool": "default", "type": "disk"}}

Value = TypeVar("Value")
Row = dict[str, object]
Config = Mapping[str, str]
Devices = Mapping[str, Mapping[str, str]]

_IDMAP = (
    '[{"Isuid":true,"Isgid":false,"Hostid":100000,"Nsid":0,"Maprange":10000001},'
    '{"Isuid":false,"Isgid":true,"Hostid":100000,"Nsid":0,"Maprange":10000001}]'
)


class Status(IntEnum):
    """LXD's states of an instance, with its codes."""

    STOPPED = 102
    RUNNING = 103
    STARTING = 106
    STOPPING = 107
    ABORTING = 108
    FREEZING = 109
    FROZEN = 110
    THAWED = 111
    ERROR = 112
    READY = 113

    @property
    def label(self) -> str:
        """The word beside the code."""
        return self.name.title()

    @property
    def up(self) -> bool:
        """Whether LXD calls such an instance running."""
        return self not in {Status.STOPPED, Status.ERROR, Status.STARTING}


@dataclass(frozen=True)
class Hardware:
    """What a simulated machine has. `memory` is in bytes; `isolated` and `offline` are numbers of threads."""

    threads: int = 16
    memory: int = 64 * GIB
    threads_per_core: int = 2
    sockets: int = 1
    isolated: frozenset[int] = frozenset()
    offline: frozenset[int] = frozenset()
    architectures: tuple[str, ...] = ("x86_64", "i686")
    virtual_machines: bool = True

    @cached_property
    def answer(self) -> bytes:
        """The body of `/1.0/resources`, which never changes."""
        return sync_body(self.resources())

    def resources(self) -> Row:
        """What `/1.0/resources` tells."""
        used = self.memory // 16
        node = {
            "numa_node": 0,
            "hugepages_used": 0,
            "hugepages_total": 0,
            "used": used,
            "total": self.memory,
        }
        return {
            "cpu": {
                "architecture": self.architectures[0],
                "sockets": [self._socket(number) for number in range(self.sockets)],
                "total": self.threads,
            },
            "memory": {
                "nodes": [node],
                "hugepages_total": 0,
                "hugepages_used": 0,
                "hugepages_size": 2097152,
                "used": used,
                "total": self.memory,
            },
            "gpu": {"cards": [], "total": 0},
            "network": {"cards": [], "total": 0},
            "storage": {"disks": [], "total": 0},
            "usb": {"devices": [], "total": 0},
            "pci": {"devices": [], "total": 0},
            "system": {
                "uuid": "",
                "vendor": "",
                "product": "",
                "family": "",
                "version": "",
                "sku": "",
                "serial": "",
                "type": "physical",
                "firmware": None,
                "chassis": None,
                "motherboard": None,
            },
        }

    def _socket(self, number: int) -> Row:
        mine = range(self.threads)[number * self.threads // self.sockets :]
        mine = mine[: (number + 1) * self.threads // self.sockets - number * self.threads // self.sockets]
        cores = [mine[start : start + self.threads_per_core] for start in range(0, len(mine), self.threads_per_core)]
        return {
            "name": "Simulated CPU",
            "vendor": "Sandbox",
            "socket": number,
            "cache": [{"level": 3, "type": "Unified", "size": 33554432}],
            "cores": [
                {
                    "core": index,
                    "die": 0,
                    "threads": [
                        {
                            "id": thread,
                            "numa_node": 0,
                            "thread": place,
                            "online": thread not in self.offline,
                            "isolated": thread in self.isolated,
                        }
                        for place, thread in enumerate(core)
                    ],
                }
                for index, core in enumerate(cores)
            ],
        }


@dataclass(frozen=True)
class Project:
    """A name space of instances, and of profiles too where `features.profiles` is true."""

    name: str
    config: Config = field(default_factory=dict)
    description: str = ""

    @property
    def own_profiles(self) -> bool:
        """Whether it has profiles of its own, instead of the default project's."""
        return self.config.get("features.profiles") == "true"


@dataclass(frozen=True)
class Profile:
    """Configuration and devices shared by instances."""

    name: str
    project: str = "default"
    config: Config = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance. `row`, when given, is shown instead of all the rest: what tests of doubtful rows store."""

    name: str
    project: str
    location: str
    config: Config
    devices: Devices
    profiles: tuple[str, ...]
    status: Status
    created_at: datetime
    kind: str = "container"
    architecture: str = "x86_64"
    ephemeral: bool = False
    stateful: bool = False
    description: str = ""
    last_used_at: datetime = NEVER
    row: Mapping[str, object] | None = None

    def show(self, profiles: Iterable[Profile]) -> Row:
        """The row of `/1.0/instances?recursion=1`. A later profile wins over an earlier one, and own keys over all."""
        if self.row is not None:
            return dict(self.row)
        config: dict[str, str] = {}
        devices: dict[str, Mapping[str, str]] = {}
        for profile in profiles:
            config |= profile.config
            devices |= profile.devices
        return {
            "architecture": self.architecture,
            "config": self.config,
            "devices": self.devices,
            "ephemeral": self.ephemeral,
            "profiles": self.profiles,
            "stateful": self.stateful,
            "description": self.description,
            "created_at": timestamp(self.created_at),
            "expanded_config": ordered(config | dict(self.config)),
            "expanded_devices": ordered(devices | dict(self.devices)),
            "name": self.name,
            "status": self.status.label,
            "status_code": int(self.status),
            "last_used_at": timestamp(self.last_used_at),
            "location": self.location,
            "type": self.kind,
            "project": self.project,
        }

    def show_unreachable(self) -> Row:
        """The row of an instance whose cluster member is offline: nothing but its name is known."""
        return {
            "architecture": "",
            "config": None,
            "devices": None,
            "ephemeral": False,
            "profiles": None,
            "stateful": False,
            "description": "",
            "created_at": "0001-01-01T00:00:00Z",
            "name": self.name,
            "status": "Error",
            "status_code": 112,
            "last_used_at": "0001-01-01T00:00:00Z",
            "location": self.location,
            "type": "",
            "project": self.project,
        }

    def show_state(self) -> Row:
        """What `/1.0/instances/NAME/state` tells, without any measurement."""
        return {
            "status": self.status.label,
            "status_code": int(self.status),
            "disk": {},
            "memory": {"usage": 0, "usage_peak": 0, "swap_usage": 0, "swap_usage_peak": 0},
            "network": None,
            "pid": 0,
            "processes": 0,
            "cpu": {"usage": 0},
        }


@dataclass(frozen=True)
class TrustedCertificate:
    """A client certificate in the trust store. A restricted one reaches only its projects."""

    fingerprint: str
    pem: str
    name: str = "client"
    restricted: bool = False
    projects: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, certificate: x509.Certificate, *, name: str, restricted: bool, projects: Iterable[str]
    ) -> TrustedCertificate:
        """The entry of a certificate."""
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        pem = certificate.public_bytes(Encoding.PEM).decode()
        return cls(fingerprint, pem, name, restricted, tuple(projects))

    def show(self) -> Row:
        """The row of `/1.0/certificates/FINGERPRINT`."""
        return {
            "name": self.name,
            "type": "client",
            "restricted": self.restricted,
            "projects": self.projects,
            "certificate": self.pem,
            "fingerprint": self.fingerprint,
        }


def volatile(instance_id: str, uuid: str) -> dict[str, str]:
    """The keys that LXD itself writes into a new container's configuration."""
    return {
        "volatile.apply_template": "create",
        "volatile.cloud-init.instance-id": instance_id,
        "volatile.idmap.base": "0",
        "volatile.idmap.next": _IDMAP,
        "volatile.last_state.idmap": "[]",
        "volatile.uuid": uuid,
    }


def ordered(mapping: Mapping[str, Value]) -> dict[str, Value]:
    """The same mapping, sorted by key as Go writes maps, without empty strings: to LXD they mean unset."""
    return {key: mapping[key] for key in sorted(mapping) if mapping[key] != ""}
