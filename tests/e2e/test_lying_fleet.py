"""The daemon over three hosts, one of which lies in every way in turn, and tells the truth at last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from lxdsched.sandbox.certs import make_certificate
from lxdsched.sandbox.faults import Fault, Refuse
from lxdsched.sandbox.records import Hardware
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from tests.e2e.daemon import TOLD_TO_END, Daemon, daemon
from tests.fleet.lies import LARGE, SMALL, Liar, instead, without
from tests.fleet.test_lying_host import REFUSED, ROW, TRUTHS
from tests.fleet.test_lying_stream import FLOOD, FRAMES
from tests.support import eventually, the_reactor
from tests.web.client import Answer, ask

LISTING, RESOURCES = "/1.0/instances", "/1.0/resources"
BODY = {"instance_requirements": {"cpu": 1, "memory": 64}, "dry_run": True}


def row(*path: str | int) -> tuple[str | int, ...]:
    return ("metadata", 0, *path)


LIES: Mapping[str, tuple[str, bytes]] = {
    f"{path} {'.'.join(map(str, where))} {what}": (path, instead(TRUTHS[path], where, {**SMALL, **LARGE}[what]))
    for path, where, whats in (
        ("/1.0", (), ("null", "a list", "4 MB", "deep lists")),
        ("/1.0", ("error_code",), ("minus", "2**70", "4,000 digits", "a number's text")),
        ("/1.0", ("type",), ("null", "no text", "orders to a terminal")),
        ("/1.0", ("metadata", "auth"), ("no text", "orders to a terminal", "4 MB")),
        ("/1.0", ("metadata", "config"), ("an endless object", "deep objects")),
        ("/1.0", ("metadata", "api_extensions"), ("an empty list", "an endless list of texts")),
        ("/1.0", ("metadata", "environment", "server_name"), ("4 MB", "half a character", "orders to a terminal")),
        ("/1.0", ("metadata", "environment", "architectures"), ("an endless list of texts", "an empty list")),
        ("/1.0", ("metadata", "environment", "server_clustered"), ("true",)),
        (RESOURCES, ("metadata", "memory", "total"), ("minus", "2**63", "2**70", "1e400", "zero", "4,000 digits")),
        (RESOURCES, ("metadata", "cpu", "total"), ("minus", "2**70", "a million digits")),
        (RESOURCES, ("metadata", "cpu", "sockets"), ("an endless list", "an object")),
        (RESOURCES, ("metadata", "cpu", "sockets", 0, "cores", 0, "threads", 0, "id"), ("minus", "2**63")),
        (LISTING, ("metadata",), ("null", "an endless list", "deep lists", "4 MB of escapes")),
        (LISTING, row(), ("null", "an object", "4 MB")),
        (LISTING, row("name"), ("4 MB", "orders to a terminal", "minus", "half a character")),
        (LISTING, row("project"), ("4 MB", "null")),
        (LISTING, row("status"), ("minus", "orders to a terminal")),
        (LISTING, row("expanded_config"), ("null", "an endless object", "deep objects")),
        (LISTING, row("expanded_config", "limits.cpu"), ("a number's text", "4 MB", "pins", "2**70")),
        (LISTING, row("expanded_config", "limits.memory"), ("a huge size", "many percent", "a number's text")),
    )
    for what in whats
} | {
    "left out: memory": (RESOURCES, without(TRUTHS[RESOURCES], ("metadata", "memory"))),
    "listed twice": (LISTING, instead(TRUTHS[LISTING], ("metadata",), json.dumps([ROW] * 3).encode())),
}


def whole(host: Mapping[str, Any]) -> tuple[object, ...]:
    """What is shown of a host that does not change by itself."""
    return host["state"], host["cpu"], host["memory"], host["instances"]


@dataclass
class Scene:
    """A daemon over a host that may lie, the first of its hosts, and others that do not: `truth` is what they are."""

    served: Daemon
    liar: SandboxServer
    truth: list[tuple[object, ...]] = field(default_factory=list)

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        self.served.running.read()
        return await ask(method, f"http://127.0.0.1:{self.served.port}{path}", body)

    async def shown(self) -> list[dict[str, Any]]:
        return list((await self.ask("GET", "/hosts")).body["hosts"])

    async def until(self, state: str) -> dict[str, Any]:
        """Wait until the liar is in a state."""
        for _ in range(600):
            if (found := (await self.shown())[0])["state"] == state:
                return found
            await deferLater(the_reactor(), 0.02)
        raise AssertionError(f"it is never {state}: {found}")

    async def chosen(self) -> set[str]:
        asking = [Deferred.fromCoroutine(self.ask("POST", "/schedule", BODY)) for _ in range(3)]
        answers = [await each for each in asking]
        assert {answer.status for answer in answers} == {200}
        return {answer.body["host"] for answer in answers}

    async def be(self, fault: Fault | None) -> None:
        """Have the liar be met anew, with something else wrong with it."""
        self.liar.fault = Refuse()
        await self.liar.settled()
        await self.until("unreachable")
        asked = self.liar.requests.total
        self.liar.fault = fault
        await self.liar.settled()
        # Who believes a host asks it four questions.
        await eventually(lambda: self.liar.requests.total >= asked + 4)

    async def others_go_on(self) -> None:
        chosen = await self.chosen()
        everybody = await self.shown()
        assert [whole(host) for host in everybody[1:]] == self.truth
        if everybody[0]["state"] == "unreachable":
            assert everybody[0]["reason"]
            assert len(everybody[0]["reason"]) <= 1000
            assert self.liar.url not in chosen
        assert (await self.ask("GET", "/readyz")).status == 200
        assert (await self.ask("GET", "/metrics")).status == 200


async def go_through(scene: Scene) -> int:
    """Tell every lie, and the truth at last; return how many lies there were."""
    await eventually(lambda: scene.liar.streams == 1)
    await scene.until("live")
    for _ in range(100):
        healthy, *scene.truth = [whole(host) for host in await scene.shown()]
        if [state for state, *_ in scene.truth] == ["live", "live"]:
            break
    assert await scene.chosen() == {scene.liar.url}
    faults = {what: Liar(bodies={path: body}) for what, (path, body) in LIES.items()}
    faults |= {what: Liar(raw={LISTING: answer}, end=True) for what, answer in REFUSED.items()}
    for what, fault in faults.items():
        try:
            await scene.be(fault)
            await scene.others_go_on()
        except Exception as error:
            raise AssertionError(what[:200]) from error
    await scene.be(None)
    await scene.until("live")
    for frame in FRAMES.values():
        scene.liar.write_raw(frame * FLOOD)
        await scene.others_go_on()
    await scene.be(None)
    await scene.until("live")
    assert whole((await scene.shown())[0]) == healthy
    assert await scene.chosen() == {scene.liar.url}
    return len(faults)


@pytest_twisted.ensureDeferred
async def test_two_hosts_go_on_while_a_third_lies_in_every_way_and_it_heals_when_it_tells_the_truth(
    tmp_path: Path,
) -> None:
    now = datetime.now(UTC)
    pair, server_pair = make_certificate("scheduler", now=now, client=True), make_certificate("node", now=now)
    certificate, key = pair.write(tmp_path, "client")
    servers: list[SandboxServer] = []
    for name, load in (("liar", "1"), ("honest-1", "9"), ("honest-2", "10")):
        state = ServerState(name, Hardware(threads=64, memory=2**38))
        state.add_instance("load", {"limits.cpu": load, "limits.memory": "1GiB"})
        state.trust(pair.certificate)
        servers.append(SandboxServer(state, the_reactor(), keypair=server_pair))  # type: ignore[arg-type]
        await servers[-1].start()
    who = {"client_cert": str(certificate), "client_key": str(key), "fingerprint": server_pair.fingerprint}
    hosts = [{"host": server.url, **who} for server in servers]
    options = ("--host-timeout=2", "--probe-interval=0.05", "--probe-interval-max=0.1")
    try:
        with daemon(hosts, *options, LXD_MULTI_SCHEDULER_LOG_FORMAT="json") as served:
            assert await go_through(Scene(served, servers[0])) > 80
            assert served.running.end() == TOLD_TO_END
            log = served.log()
    finally:
        for server in servers:
            await server.stop()
    assert len(log) > 100
    assert not [line for line in log if "traceback" in line or "of ours" in line["msg"] or line["level"] == "ERROR"]
    assert max(len(json.dumps(line)) for line in log) < 8000
