"""The view of real hosts stays fresh by itself, and whatever becomes of their event streams is noticed."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.e2e.daemon import TOLD_TO_END, Daemon, daemon
from tests.e2e.network import namespace, relayed
from tests.e2e.test_real import SMALL, configured
from tests.lxd.driver import LxdDriver
from tests.lxd.fixtures import RealLxd
from tests.support import the_reactor

pytestmark = pytest.mark.real_lxd

BRISK = ("--ping-interval=0.5", "--probe-interval=0.1", "--probe-interval-max=0.3", "--host-timeout=1")
HEARD = 1.0
"""Seconds within which a change has to be known."""

Change = Callable[[LxdDriver], Awaitable[None]]


async def pause(seconds: float) -> None:
    await deferLater(the_reactor(), seconds)


async def create_by_hand(driver: LxdDriver) -> None:
    await driver.create("late", config={"limits.cpu": "1", "limits.memory": "128MiB"})


CHANGES: list[tuple[str, Change, tuple[float, int]]] = [
    ("create", create_by_hand, (3, 0)),
    ("config set", lambda driver: driver.set_config("a", {"limits.cpu": "2"}), (4, 0)),
    ("profile edit", lambda driver: driver.set_profile("big", {"limits.cpu": "2"}), (5, 0)),
    ("start", lambda driver: driver.start("a"), (5, 0)),
    ("pause", lambda driver: driver.freeze("a"), (3, 1)),
    ("resume", lambda driver: driver.unfreeze("a"), (5, 0)),
    ("stop", lambda driver: driver.stop("a"), (5, 0)),
    ("delete", lambda driver: driver.delete("a"), (3, 0)),
]
"""What is done by hand, and the cores that are allocated and the instances that are exempt after it."""


async def shown(served: Daemon, host: str) -> dict[str, Any]:
    """Ask for a host without keeping the relay from its work."""
    found: dict[str, Any] = await deferToThread(served.host, host)
    return found


async def until(served: Daemon, host: str, state: str) -> dict[str, Any]:
    """Wait until a host is in a state."""
    end = time.monotonic() + 60
    while (found := await shown(served, host))["state"] != state:
        assert time.monotonic() < end, f"it stays {found['state']}: {found['reason']}"
        await pause(0.05)
    return found


@pytest_twisted.ensureDeferred
async def test_a_change_by_hand_is_known_within_a_second_though_nobody_asks(
    fresh_lxds: tuple[RealLxd, ...], tmp_path: Path
) -> None:
    driver = fresh_lxds[0].driver
    await driver.create_profile("big", {"limits.cpu": "1", "limits.memory": "128MiB"})
    await driver.create("a", config=SMALL, startable=True)
    await driver.create("b", profiles=["default", "big"])
    hosts = await configured(fresh_lxds[:1], tmp_path)
    with daemon(hosts, LXD_MULTI_LOG_LEVEL="warn") as served:
        await until(served, hosts[0]["host"], "live")
        for name, change, (allocated, exempt) in CHANGES:
            await change(driver)
            await pause(HEARD / 2)
            view = await shown(served, hosts[0]["host"])
            assert view["state"] == "live"
            assert (name, view["cpu"]["allocated"], view["instances"]["exempt"]) == (name, allocated, exempt)
            assert view["age_seconds"] > HEARD / 8, "it was listed because we asked"
        assert served.running.end() == TOLD_TO_END


@pytest.mark.parametrize("how", ["cut", "silent"])
@pytest_twisted.ensureDeferred
async def test_a_stream_that_breaks_or_falls_silent_is_noticed_and_nothing_is_missed(
    fresh_lxds: tuple[RealLxd, ...], tmp_path: Path, how: str
) -> None:
    driver = fresh_lxds[0].driver
    (host,) = await configured(fresh_lxds[:1], tmp_path)
    async with relayed(urlsplit(host["host"]).port or 0) as (relay, port):
        host["host"] = f"https://127.0.0.1:{port}"
        with daemon([host], *BRISK, LXD_MULTI_LOG_LEVEL="warn") as served:
            await until(served, host["host"], "live")
            relay.silent = True
            if how == "cut":
                relay.cut()
            assert (await until(served, host["host"], "unreachable"))["reason"]
            await driver.create("missed", config=SMALL)
            assert (await shown(served, host["host"]))["cpu"]["allocated"] == 0
            relay.cut()
            relay.silent = False
            view = await until(served, host["host"], "live")
            assert view["cpu"]["allocated"] == 1
            await driver.delete("missed")
            await pause(HEARD)
            assert (await shown(served, host["host"]))["cpu"]["allocated"] == 0
            await deferToThread(served.running.end)


@pytest_twisted.ensureDeferred
async def test_a_network_that_goes_away_and_comes_back_is_noticed_and_nothing_is_missed(
    fresh_lxds: tuple[RealLxd, ...], tmp_path: Path
) -> None:
    driver = fresh_lxds[0].driver
    (host,) = await configured(fresh_lxds[:1], tmp_path)
    with namespace() as inner:
        async with relayed(urlsplit(host["host"]).port or 0, inner.outside) as (_, port):
            host["host"] = f"https://{inner.outside}:{port}"
            with daemon([host], *BRISK, LXD_MULTI_LOG_LEVEL="info", within=inner.enter) as served:

                async def state(wanted: str) -> dict[str, Any]:
                    curl = [*inner.enter, "curl", "--silent", f"http://127.0.0.1:{served.port}/hosts"]
                    end = time.monotonic() + 60
                    while True:
                        said = await deferToThread(subprocess.run, curl, capture_output=True, timeout=60)
                        (found,) = json.loads(said.stdout)["hosts"]
                        if found["state"] == wanted:
                            return dict(found)
                        assert time.monotonic() < end, f"it stays {found['state']}: {found['reason']}"
                        await pause(0.05)

                await state("live")
                inner.set_link("down")
                await state("unreachable")
                await driver.create("missed", config=SMALL)
                inner.set_link("up")
                assert (await state("live"))["cpu"]["allocated"] == 1
                await driver.delete("missed")
                await pause(HEARD)
                assert (await state("live"))["cpu"]["allocated"] == 0
                await deferToThread(served.running.end)
