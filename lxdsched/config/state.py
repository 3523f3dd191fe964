"""The directory where the daemon keeps what a restart must not forget."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from lxdsched.fleet.settings import HostSettings
from lxdsched.spelling import counted
from lxdsched.trust.directory import StoreError
from lxdsched.trust.file import TrustFile

SYSTEMD_VARIABLE = "STATE_DIRECTORY"
"""Where systemd names the directories that it made for a service, with colons between them."""


def find_state_directory(source: str, value: object, environment: Mapping[str, str]) -> tuple[str, str | None]:
    """Return where the directory was found, and its whole path: the setting's, else systemd's first, else None."""
    if value is None:
        source, value = SYSTEMD_VARIABLE, environment.get(SYSTEMD_VARIABLE, "").split(":")[0].strip()
    return source, os.path.abspath(str(value)) if value else None


def state_directory(source: str, value: object, environment: Mapping[str, str], faults: list[str]) -> str | None:
    """Return the directory, None where there is none. What keeps it from being used is a fault."""
    source, path = find_state_directory(source, value, environment)
    if path is not None:
        try:
            TrustFile(path).check()
        except (StoreError, ValueError) as error:  # ValueError is of a name that no file can have
            faults.append(f"{source}: {error}")
    return path


def unremembered(hosts: Iterable[HostSettings], directory: str | None) -> list[str]:
    """Warn of hosts whose certificates a restart forgets."""
    first_use = [host.host for host in hosts if host.trust is None]
    if directory is not None or not first_use:
        return []
    return [
        f"a restart forgets the certificates of {counted(len(first_use), 'host')} trusted on first use: set "
        "state_directory to have them remembered, or pin them by fingerprint"
    ]
