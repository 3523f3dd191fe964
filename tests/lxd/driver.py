"""Changes things on an LXD by its REST API: a real one, or a simulated one that must behave alike."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.task import deferLater

from lxdsched.sandbox.certs import KeyPair
from tests.lxd.rest import DEADLINE, IReactor, LxdError, RestClient

__all__ = ["IReactor", "LxdDriver", "LxdError", "certificate_body"]

ACTION_SECONDS = 30
"""How long LXD lets a guest take to stop when it is asked politely."""

POLL_SECONDS = 0.02

SHARED = {"features.images": "false", "features.profiles": "false"}
"""A project that uses the default project's images and profiles."""


class LxdDriver:
    """What an administrator does with one LXD.

    Every call returns when the operation behind it has ended; LxdError says that LXD refused it or that it failed.
    """

    def __init__(
        self,
        url: str,
        reactor: IReactor,
        pair: KeyPair,
        fingerprint: str | None = None,
        *,
        image: str = "tiny",
    ) -> None:
        self.url = url
        self._pair = pair
        self._image = image
        self._reactor = reactor
        self._rest = RestClient.over_tls(url, reactor, pair, fingerprint)

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout: float = DEADLINE,
    ) -> Any:
        """Send any request, wait for the operation it may start, and return LXD's `metadata`."""
        return await self._rest.request(method, path, body, query=query, timeout=timeout)

    async def aclose(self) -> None:
        """Close every connection; the next call opens a new one. A test that uses the driver ends with this."""
        await self._rest.aclose()

    async def instances(self) -> list[dict[str, Any]]:
        """List the instances of all projects, as the scheduler does."""
        query = {"recursion": "1", "all-projects": "true"}
        rows: list[dict[str, Any]] = await self.request("GET", "/1.0/instances", query=query)
        return rows

    async def instance(self, name: str, *, project: str = "default") -> dict[str, Any]:
        """Return one instance's row."""
        row: dict[str, Any] = await self.request("GET", _instance(name), query={"project": project})
        return row

    async def create(
        self,
        name: str,
        *,
        config: Mapping[str, str] | None = None,
        profiles: list[str] | None = None,
        project: str = "default",
        type: str = "container",  # noqa: A002 (LXD's own word)
        startable: bool = False,
        target: str | None = None,
    ) -> None:
        """Create an instance, empty unless `startable`; on the cluster member `target`, else where LXD likes."""
        source = {"type": "image", "alias": self._image} if startable else {"type": "none"}
        body: dict[str, object] = {"name": name, "type": type, "source": source, "config": dict(config or {})}
        if profiles is not None:
            body["profiles"] = profiles
        query = {"project": project} | ({"target": target} if target else {})
        await self.request("POST", "/1.0/instances", body, query=query)

    async def start(self, name: str, *, project: str = "default") -> None:
        """Start an instance."""
        await self._act(name, "start", project)

    async def stop(self, name: str, *, project: str = "default", force: bool = True) -> None:
        """Stop an instance, by pulling its plug unless `force` is False."""
        await self._act(name, "stop", project, force=force)

    async def restart(self, name: str, *, project: str = "default", force: bool = True) -> None:
        """Stop an instance and start it again."""
        await self._act(name, "restart", project, force=force)

    async def freeze(self, name: str, *, project: str = "default") -> None:
        """Freeze a running instance."""
        await self._act(name, "freeze", project)

    async def unfreeze(self, name: str, *, project: str = "default") -> None:
        """Let a frozen instance go on."""
        await self._act(name, "unfreeze", project)

    async def delete(self, name: str, *, project: str = "default") -> None:
        """Delete a stopped instance."""
        await self.request("DELETE", _instance(name), query={"project": project})

    async def rename(self, name: str, new: str, *, project: str = "default") -> None:
        """Rename a stopped instance."""
        await self.request("POST", _instance(name), {"name": new}, query={"project": project})

    async def set_config(self, name: str, config: Mapping[str, str | None], *, project: str = "default") -> None:
        """Set keys of an instance's own config; None takes a key away."""
        query = {"project": project}
        if None not in config.values():
            await self.request("PATCH", _instance(name), {"config": dict(config)}, query=query)
            return
        row = await self.instance(name, project=project)
        body = _writable(row, config=_merged(row["config"], config))
        await self.request("PUT", _instance(name), body, query=query)

    async def set_profiles(self, name: str, profiles: list[str], *, project: str = "default") -> None:
        """Give an instance these profiles, in this order, instead of those it has."""
        row = await self.instance(name, project=project)
        body = _writable(row, profiles=profiles)
        await self.request("PUT", _instance(name), body, query={"project": project})

    async def create_profile(self, name: str, config: Mapping[str, str], *, project: str = "default") -> None:
        """Create a profile without devices."""
        body = {"name": name, "config": dict(config), "devices": {}}
        await self.request("POST", "/1.0/profiles", body, query={"project": project})

    async def set_profile(self, name: str, config: Mapping[str, str | None], *, project: str = "default") -> None:
        """Set keys of a profile's config; None takes a key away. Its devices stay."""
        path, query = f"/1.0/profiles/{quote(name)}", {"project": project}
        old = await self.request("GET", path, query=query)
        kept = {key: old[key] for key in ("description", "devices")}
        await self.request("PUT", path, kept | {"config": _merged(old["config"], config)}, query=query)

    async def delete_profile(self, name: str, *, project: str = "default") -> None:
        """Delete a profile that nothing uses."""
        await self.request("DELETE", f"/1.0/profiles/{quote(name)}", query={"project": project})

    async def create_project(self, name: str) -> None:
        """Create a project that shares the default project's images and profiles."""
        await self.request("POST", "/1.0/projects", {"name": name, "config": SHARED})

    async def delete_project(self, name: str) -> None:
        """Delete an empty project."""
        await self.request("DELETE", f"/1.0/projects/{quote(name)}")

    async def trust(
        self, cert_pem: bytes, *, name: str = "client", restricted_projects: list[str] | None = None
    ) -> None:
        """Trust a client's certificate: wholly, or confined to some projects when they are given."""
        await self.request("POST", "/1.0/certificates", certificate_body(cert_pem, name, restricted_projects))

    async def untrust(self, fingerprint: str) -> None:
        """Trust a certificate no longer; `fingerprint` is the SHA-256 of its DER in hexadecimal."""
        await self.request("DELETE", f"/1.0/certificates/{fingerprint}")

    async def set_server_config(self, config: Mapping[str, str | None]) -> None:
        """Set keys of the server's own config; None takes a key away."""
        await self.request("PATCH", "/1.0", {"config": {key: value or "" for key, value in config.items()}})

    async def set_member_config(self, member: str, config: Mapping[str, str | None]) -> None:
        """Set keys of a cluster member's config, such as `scheduler.instance`; None takes a key away."""
        path = f"/1.0/cluster/members/{quote(member)}"
        old = await self.request("GET", path)
        kept = {key: old[key] for key in ("roles", "failure_domain", "description", "groups")}
        await self.request("PUT", path, kept | {"config": _merged(old["config"], config)})

    async def evacuate(self, member: str) -> None:
        """Take a cluster member out of service; LXD moves what runs there to other members."""
        body = {"action": "evacuate"}
        await self.request("POST", f"/1.0/cluster/members/{quote(member)}/state", body)

    async def restore(self, member: str) -> None:
        """Put an evacuated cluster member into service again."""
        await self.request("POST", f"/1.0/cluster/members/{quote(member)}/state", {"action": "restore"})

    async def reset(self) -> None:
        """Bring the server back to how tests expect to find it.

        No instances, no other profiles or projects than the default ones, no client but this one, no config in
        the default profile and no `user.*` keys in the server's config.
        """
        for row in await self.instances():
            name, project = row["name"], row["project"]
            if row["status"] != "Stopped":
                await self.stop(name, project=project)
            await self.delete(name, project=project)
        for row in await self.request("GET", "/1.0/projects", query={"recursion": "1"}):
            if row["name"] == "default" or row["config"].get("features.profiles") == "true":
                await self._reset_profiles(row["name"])
            if row["name"] != "default":
                await self.delete_project(row["name"])
        for row in await self.request("GET", "/1.0/certificates", query={"recursion": "1"}):
            # The members of a cluster trust each other by certificates of type server.
            if row["type"] == "client" and row["fingerprint"] != self._pair.fingerprint:
                await self.untrust(row["fingerprint"])
        server = await self.request("GET", "/1.0")
        leftovers: dict[str, str | None] = {key: None for key in server["config"] if key.startswith("user.")}
        if leftovers:
            await self.set_server_config(leftovers)

    async def _reset_profiles(self, project: str) -> None:
        for row in await self.request("GET", "/1.0/profiles", query={"recursion": "1", "project": project}):
            if row["name"] != "default":
                await self.delete_profile(row["name"], project=project)
            elif row["config"]:
                await self.set_profile("default", dict.fromkeys(row["config"]), project=project)

    async def _act(self, name: str, action: str, project: str, *, force: bool = False) -> None:
        if action in {"stop", "restart"} and not force:
            await self._hearing(name, project)
        body = {"action": action, "force": force, "timeout": ACTION_SECONDS}
        await self.request("PUT", f"{_instance(name)}/state", body, query={"project": project})

    async def _hearing(self, name: str, project: str) -> None:
        """Wait until a guest that was just started would hear a signal to stop: its init then has a child.

        Until it has set its traps, it is deaf to them, and LXD would wait for it in vain.
        """
        for _ in range(round(ACTION_SECONDS / POLL_SECONDS)):
            state = await self.request("GET", f"{_instance(name)}/state", query={"project": project})
            if state["processes"] != 1:
                return
            await deferLater(self._reactor, POLL_SECONDS)


def certificate_body(cert_pem: bytes, name: str, restricted_projects: list[str] | None) -> dict[str, object]:
    """Return what LXD wants to be sent in order to trust a certificate."""
    der = x509.load_pem_x509_certificate(cert_pem).public_bytes(Encoding.DER)
    return {
        "type": "client",
        "name": name,
        "certificate": b64encode(der).decode(),
        "restricted": restricted_projects is not None,
        "projects": restricted_projects or [],
    }


def _instance(name: str) -> str:
    return f"/1.0/instances/{quote(name)}"


def _writable(row: Mapping[str, Any], **changes: object) -> dict[str, object]:
    """The part of an instance's row that PUT takes, with changes."""
    kept = ("architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description")
    return {key: row[key] for key in kept} | changes


def _merged(old: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in {**old, **changes}.items() if value is not None}
