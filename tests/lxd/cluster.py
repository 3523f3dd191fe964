"""A real LXD or Incus cluster of three on one machine."""

from __future__ import annotations

import json
from base64 import b64encode

from twisted.internet.utils import getProcessOutputAndValue

from lxdsched.sandbox.certs import KeyPair
from tests.lxd.daemon import LxdDaemon
from tests.lxd.driver import LxdDriver
from tests.lxd.flavour import LXD, Flavour
from tests.lxd.rest import IReactor, LxdError, together

NAMES = ("k1", "k2", "k3")


class LxdCluster:
    """Three daemons that are one cluster; instances are listed by every member, and run on one of them."""

    def __init__(self, reactor: IReactor, admin: KeyPair, flavour: Flavour = LXD) -> None:
        self.daemons = tuple(LxdDaemon(reactor, name, flavour=flavour, bare=True) for name in NAMES)
        self.drivers: tuple[LxdDriver, ...] = ()
        self._reactor = reactor
        self._admin = admin

    async def start(self) -> None:
        """Start the daemons and make them a cluster which trusts the administrator."""
        await together(daemon.start() for daemon in self.daemons)
        first, *others = self.daemons
        await self._preseed(first, _founder(first))
        for daemon in others:
            await self._preseed(daemon, _joiner(daemon, await _token(first, daemon.name)))
        await first.import_image()
        await first.trust(self._admin.cert_pem, "admin")
        self.drivers = tuple(
            LxdDriver(daemon.url, self._reactor, self._admin, daemon.fingerprint) for daemon in self.daemons
        )

    async def reset(self) -> None:
        """Put every member into service again, then sweep the cluster clean."""
        for daemon in self.daemons:
            await daemon.revive()
        driver = self.drivers[0]
        for member in await driver.request("GET", "/1.0/cluster/members", query={"recursion": "1"}):
            if member["status"] == "Evacuated":
                await driver.restore(member["server_name"])
            if member["config"]:
                await driver.set_member_config(member["server_name"], dict.fromkeys(member["config"]))
        await driver.reset()

    async def aclose(self) -> None:
        """Close every driver's connections."""
        for driver in self.drivers:
            await driver.aclose()

    def cleanup(self) -> None:
        """End the whole cluster and leave nothing behind."""
        for daemon in self.daemons:
            daemon.cleanup()

    async def _preseed(self, daemon: LxdDaemon, preseed: dict[str, object]) -> None:
        program, *words = daemon.flavour.setup
        # JSON is YAML.
        out, err, code = await getProcessOutputAndValue(
            daemon.flavour.program(program),
            words,
            env={**daemon.flavour.environment(daemon.directory), "HOME": str(daemon.directory)},
            reactor=self._reactor,
            stdinBytes=json.dumps(preseed).encode(),
        )
        if code != 0:
            raise LxdError(code, f"the preseed of {daemon.name}: {(out + err).decode(errors='replace')}")


def _founder(daemon: LxdDaemon) -> dict[str, object]:
    return {
        "config": {"core.https_address": daemon.address},
        "cluster": {"server_name": daemon.name, "enabled": True},
        "storage_pools": [{"name": "default", "driver": "dir"}],
        "profiles": [
            {"name": "default", "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}}},
        ],
    }


def _joiner(daemon: LxdDaemon, token: str) -> dict[str, object]:
    return {
        "cluster": {
            "server_name": daemon.name,
            "enabled": True,
            "server_address": daemon.address,
            "cluster_token": token,
            "member_config": [],
        }
    }


async def _token(founder: LxdDaemon, name: str) -> str:
    """Ask for a token that lets `name` join. The operation that holds it lasts until it is used."""
    operation = await founder.local.request("POST", "/1.0/cluster/members", {"server_name": name}, wait=False)
    await founder.local.aclose()
    facts = operation["metadata"]
    token = {
        "server_name": facts["serverName"],
        "fingerprint": facts["fingerprint"],
        "addresses": facts["addresses"],
        "secret": facts["secret"],
        "expires_at": facts["expiresAt"],
    }
    return b64encode(json.dumps(token).encode()).decode()
