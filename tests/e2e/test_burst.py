"""Many requests at once: what fits is placed, all of it, and nothing beyond it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredSemaphore

from lxdsched.sandbox.certs import make_certificate
from lxdsched.sandbox.records import Hardware
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from tests.e2e.daemon import TOLD_TO_END, daemon
from tests.support import GIB, the_reactor
from tests.web.client import Answer, ask

HOSTS, CORES, ASKED = 10, 16, 2
ROOM = HOSTS * CORES // ASKED
AT_ONCE = 64
BODY = {"cpu": ASKED, "memory": 2 * GIB}


@pytest_twisted.async_yield_fixture
async def fleet(tmp_path: Path) -> AsyncIterator[list[dict[str, Any]]]:
    """Ten hosts of sixteen cores, as LXD_MULTI_HOSTS."""
    now = datetime.now(UTC)
    pair, server_pair = make_certificate("scheduler", now=now, client=True), make_certificate("node", now=now)
    certificate, key = pair.write(tmp_path, "client")
    servers = []
    for number in range(HOSTS):
        state = ServerState(f"node-{number}", Hardware(threads=CORES))
        state.trust(pair.certificate)
        servers.append(server := SandboxServer(state, the_reactor(), keypair=server_pair))  # type: ignore[arg-type]
        await server.start()
    yield [
        {
            "host": server.url,
            "client_cert": str(certificate),
            "client_key": str(key),
            "fingerprint": server_pair.fingerprint,
        }
        for server in servers
    ]
    for server in servers:
        await server.stop()


async def burst(url: str, requests: int) -> list[Answer]:
    gate = DeferredSemaphore(AT_ONCE)
    asking = [gate.run(lambda: Deferred.fromCoroutine(ask("POST", url + "/schedule", BODY))) for _ in range(requests)]
    return [await each for each in asking]


@pytest.mark.parametrize("requests", [ROOM, 3 * ROOM])
@pytest_twisted.ensureDeferred
async def test_a_burst_fills_the_fleet_to_the_brim_and_no_further(fleet: list[dict[str, Any]], requests: int) -> None:
    with daemon(fleet, LXD_MULTI_LOG_LEVEL="error") as served:
        url = f"http://127.0.0.1:{served.port}"
        for _ in range(3):
            answers = await burst(url, requests)
            placed = [answer.body for answer in answers if answer.status == 200]
            assert Counter(each["host"] for each in placed) == {host["host"]: CORES // ASKED for host in fleet}
            assert {answer.body["code"] for answer in answers if answer.status != 200} <= {"no_capacity"}
            for each in placed:
                assert (await ask("DELETE", f"{url}/reservations/{each['reservation']['id']}")).status == 204
        assert served.running.end() == TOLD_TO_END
