"""What clients call their requests is nothing to each other, at one daemon and at two on one Redis."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import PATIENCE, TOLD_TO_END, Daemon
from tests.e2e.guarded import Credential, Outfit, guarded
from tests.e2e.replicas import Fleet, simulated, soon
from tests.redis.server import redis_server

BODY = {"cpu": 1, "memory": 1048576, "request_id": "job-7"}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with simulated(2) as it:
        yield it


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.real_redis)], ids=["alone", "on one Redis"])
def daemons(
    request: pytest.FixtureRequest, fleet: Fleet, tmp_path: Path
) -> Iterator[tuple[list[Daemon], dict[str, Credential]]]:
    """One daemon, or two, and the keys of its clients."""
    outfit = Outfit(tmp_path)
    clients = {name: outfit.admit(name, "schedule") for name in ("ci", "qa")}
    clients["eye"] = outfit.admit("eye", "read")
    with ExitStack() as stack:
        settings = {}
        if request.param > 1:
            redis = stack.enter_context(redis_server())
            settings = {"LXD_MULTI_SCHEDULER_REDIS_URL": redis.url, "LXD_MULTI_SCHEDULER_REDIS_TIMEOUT": "2"}
        started = [
            stack.enter_context(guarded(fleet.hosts, outfit, "plain", **settings))[0] for _ in range(request.param)
        ]
        for each in started:
            soon(lambda each=each: each.ask("GET", "/readyz")[1].get("status"), "ready")  # type: ignore[misc]
        yield started, clients
        assert [each.running.end() for each in started] == [TOLD_TO_END] * request.param


def asked(
    daemon: Daemon, client: Credential, method: str = "POST", path: str = "/schedule", **more: object
) -> tuple[int, Any]:
    """Ask as a client; return the status, and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE)
    try:
        body = json.dumps(BODY | more) if method == "POST" else None
        connection.request(method, path, body, dict(client.headers))
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None
    finally:
        connection.close()


def test_the_same_request_id_of_two_clients_is_two_requests(
    daemons: tuple[list[Daemon], dict[str, Credential]],
) -> None:
    each, clients = daemons
    one, other = each[0], each[-1]
    ids = {}
    for name, cores in (("ci", 1), ("qa", 2)):
        status, answer = asked(one, clients[name], cpu=cores)
        assert status == 200, answer
        ids[name] = answer["reservation"]["id"]
        assert asked(other, clients[name], cpu=cores)[1]["reservation"]["id"] == ids[name], "repeated, at any daemon"
        status, answer = asked(other, clients[name], cpu=3)
        assert (status, answer["code"]) == (409, "request_id_reused")
    for daemon in each:
        listed = asked(daemon, clients["eye"], "GET", "/reservations")[1]["reservations"]
        found = {(shown["id"], shown["client"], shown["request_id"], shown["cpu"]) for shown in listed}
        assert found == {(ids["ci"], "ci", "job-7", 1), (ids["qa"], "qa", "job-7", 2)}
    assert asked(one, clients["ci"], "DELETE", f"/reservations/{ids['ci']}") == (204, None)
    assert asked(one, clients["qa"], cpu=2)[1]["reservation"]["id"] == ids["qa"]
    assert asked(one, clients["ci"])[1]["reservation"]["id"] not in ids.values()
