"""`twistd lxdsched` over real LXD daemons that hold real instances."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from lxdsched.sandbox.certs import make_certificate
from tests.e2e.daemon import TOLD_TO_END, daemon
from tests.lxd.fixtures import RealLxd

pytestmark = pytest.mark.real_lxd

SMALL = {"limits.cpu": "1", "limits.memory": "256MiB"}


async def configured(lxds: tuple[RealLxd, ...], directory: Path) -> list[dict[str, Any]]:
    """Have the daemons trust a certificate, and configure them as the shoes-lxd-multi server does."""
    pair = make_certificate("scheduler", now=datetime.now(UTC), client=True)
    certificate, key = pair.write(directory, "client")
    for lxd in lxds:
        await lxd.driver.trust(pair.cert_pem, name="scheduler")
    return [{"host": lxd.daemon.url, "client_cert": str(certificate), "client_key": str(key)} for lxd in lxds]


@pytest_twisted.ensureDeferred
async def test_the_next_answer_follows_what_happens_to_instances(
    fresh_lxds: tuple[RealLxd, ...], tmp_path: Path
) -> None:
    one, two, three = fresh_lxds
    hosts = await configured(fresh_lxds, tmp_path)
    # One of them is written as people write it; the answer must repeat it to the letter.
    hosts[2]["host"] = hosts[2]["host"].removeprefix("https://")
    spelled = [host["host"] for host in hosts]
    await one.driver.create("a", config=SMALL, startable=True)
    await two.driver.create("b", config=SMALL, startable=True)
    with daemon(hosts) as served:
        assert served.would_choose() == spelled[2]
        flat = {"cpu": 1, "memory": 2**28, "dry_run": True}
        assert served.ask("POST", "/schedule", flat)[1]["host"] == spelled[2]

        await three.driver.create_profile("big", {"limits.cpu": "2", "limits.memory": "512MiB"})
        await three.driver.create("c", profiles=["default", "big"], startable=True)
        await two.driver.start("b")
        await two.driver.freeze("b")
        served.soon(served.would_choose, spelled[1])

        await two.driver.unfreeze("b")
        await one.driver.delete("a")
        served.soon(served.would_choose, spelled[0])

        await one.driver.create("d", config=SMALL)
        await one.driver.create("e", config=SMALL)
        await two.driver.create("f", config=SMALL)
        await three.driver.set_profile("big", {"limits.cpu": "1"})
        served.soon(served.would_choose, spelled[2])
        assert served.host(spelled[2])["cpu"]["allocated"] == 1

        status, refused = served.schedule(cores=64)
        assert (status, refused["code"]) == (422, "never_fits")
        assert served.running.end() == TOLD_TO_END


@pytest_twisted.ensureDeferred
async def test_a_killed_daemon_costs_no_answer_and_returns(fresh_lxds: tuple[RealLxd, ...], tmp_path: Path) -> None:
    hosts = await configured(fresh_lxds, tmp_path)
    with daemon(hosts, "--probe-interval=0.1", "--probe-interval-max=0.2") as served:
        back = f"host {hosts[0]['host']} answers: live"
        served.running.wait_for(back)
        assert served.schedule(dry_run=True)[0] == 200
        await fresh_lxds[0].daemon.kill()
        for _ in range(5):
            status, placed = served.schedule(dry_run=True)
            assert status == 200
            assert placed["host"] != hosts[0]["host"]
        assert served.host(hosts[0]["host"])["state"] == "unreachable"
        await fresh_lxds[0].daemon.revive()
        served.running.wait_for(back)
        assert served.host(hosts[0]["host"])["state"] == "live"
        assert served.running.end() == TOLD_TO_END
