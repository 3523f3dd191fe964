"""The promise on real LXD: instances come and go as the answers say, and no host ever carries more than it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import pytest_twisted

from tests.e2e.churn import Churn
from tests.e2e.daemon import TOLD_TO_END, daemon
from tests.e2e.test_real import configured
from tests.lxd.fixtures import RealLxd

pytestmark = pytest.mark.real_lxd

SECONDS = float(os.environ.get("LXDSCHED_CHURN_SECONDS", "6"))
"""How long the instances come and go; minutes show more."""
CORES = 8
TTL = 15.0


@pytest_twisted.ensureDeferred
async def test_no_host_ever_carries_more_than_it_has_and_nothing_is_refused_that_fits(
    fresh_lxds: tuple[RealLxd, ...], tmp_path: Path
) -> None:
    hosts = await configured(fresh_lxds, tmp_path)
    drivers = {host["host"]: lxd.driver for host, lxd in zip(hosts, fresh_lxds, strict=True)}
    threads = (await fresh_lxds[0].driver.request("GET", "/1.0/resources"))["cpu"]["total"]
    options = (f"--over-commit-percent={100 * CORES // threads}", f"--reservation-ttl={TTL:g}")
    with daemon(hosts, *options, LXD_MULTI_LOG_LEVEL="warn") as served:
        churn = Churn(f"http://127.0.0.1:{served.port}", CORES, drivers, TTL)
        await churn.run(SECONDS, clients=16)
        assert served.running.end() == TOLD_TO_END
    print(dict(churn.counts), "most shown", dict(churn.most_seen), "most held", dict(churn.most_held))
    assert churn.wrong == []
    assert churn.counts["deleted"]
    assert churn.counts["refused"], "nothing was tight"
