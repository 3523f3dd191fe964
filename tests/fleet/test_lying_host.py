"""A fleet over real TLS in which one host lies, in every way in turn, and another one tells the truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import LogLevel

from lxdsched.fleet.fleet import Fleet
from lxdsched.fleet.settings import Patience
from lxdsched.model import Placement, Resources, State, View
from lxdsched.sandbox.certs import KeyPair
from lxdsched.web.answers import Moment, hosts
from tests.conftest import Logged
from tests.fleet.conftest import LISTING, MakeServer, settings
from tests.fleet.lies import LARGE, SMALL, Liar, instead, paths, without
from tests.support import ANSWERING, GIB, decided, demand, eventually, only_view, running_fleet, the_reactor

RESOURCES = "/1.0/resources"
BRIEF = Patience(question=5, probe_first=0.05, probe_most=0.1)
ENVELOPE: dict[str, Any] = {
    "type": "sync",
    "status": "Success",
    "status_code": 200,
    "operation": "",
    "error_code": 0,
    "error": "",
}
SERVER: dict[str, Any] = {
    "auth": "trusted",
    "api_extensions": ["instance_all_projects"],
    "config": {},
    "environment": {
        "server_name": "node",
        "server_clustered": False,
        "architectures": ["x86_64"],
        "driver": "lxc | qemu",
        "server": "lxd",
        "server_version": "5.0.2",
    },
}
HARDWARE: dict[str, Any] = {
    "cpu": {"total": 4, "sockets": [{"cores": [{"threads": [{"id": 0, "online": True, "isolated": False}]}]}]},
    "memory": {"total": 2**36, "used": 1},
}
ROW: dict[str, Any] = {
    "name": "a",
    "project": "default",
    "status": "Running",
    "location": "none",
    "type": "container",
    "expanded_config": {"limits.cpu": "1", "limits.memory": "1GiB"},
}
TRUTHS: Mapping[str, Any] = {
    "/1.0": ENVELOPE | {"metadata": SERVER},
    RESOURCES: ENVELOPE | {"metadata": HARDWARE},
    LISTING: ENVELOPE | {"metadata": [ROW, ROW | {"name": "b"}]},
}
TOLD = ("null", "minus", "2**70", "4,000 digits", "1e400", "orders to a terminal", "half a character", "a list")
"""Of each kind one: all of them are told to what decodes and counts, without a server."""


async def lied_to(fleet: Fleet, truthful: str) -> View:
    """Say how the lying host stands, once the other one has been found as it is and a place was found there."""
    liar, honest = await fleet.views()
    assert (honest.host, honest.state in ANSWERING) == (truthful, True)
    assert honest.allocation.resources == Resources(3000, 3 * GIB)
    placed = await decided(fleet, demand(targets=frozenset({truthful})))
    assert isinstance(placed, Placement)
    msgspec.json.encode(hosts([liar, honest], [], Moment(1.0, 1.0)))
    assert len(liar.reason or "") <= 1000
    assert "broke something" not in (liar.reason or "")
    if liar.schedulable:
        assert liar.capacity is not None
        assert 0 < liar.capacity.total.memory <= 2**60
        assert liar.allocation.resources.cpu >= 0
        assert liar.allocation.resources.memory >= 0
    else:
        assert liar.reason
    return liar


@pytest.mark.parametrize("path", list(TRUTHS))
@pytest_twisted.ensureDeferred
async def test_whatever_a_host_says_falsely_it_alone_suffers_until_it_tells_the_truth(
    make_server: MakeServer, pair: KeyPair, path: str
) -> None:
    liar, honest = await make_server(), await make_server(name="honest")
    honest.state.add_instance("load", {"limits.cpu": "3", "limits.memory": "3GiB"})
    truth = TRUTHS[path]
    told = []
    for where, what in zip(paths(truth), cycle(TOLD), strict=False):
        told += [instead(truth, where, SMALL[each]) for each in {what, "null", "2**70"}]
        told += [without(truth, where)] if where else []
    told += [instead(truth, ("metadata",), lie) for lie in LARGE.values()]
    told += [instead(truth, (), lie) for lie in LARGE.values()]
    seen: dict[int, View] = {}
    for number, body in enumerate(told):
        liar.fault = Liar(bodies={path: body})
        async with running_fleet([settings(liar, pair), settings(honest, pair)], BRIEF) as fleet:
            await lied_to(fleet, honest.url)
            fleet.watch(lambda view: seen.update({0: view} if view.host == liar.url else {}))
            liar.fault = None
            if fleet.snapshot()[0].schedulable and path != LISTING:
                continue  # it is believed, and what it says of its size is good for a while
            liar.state.add_instance(f"news-{number}")
            await eventually(lambda: seen[0].state in ANSWERING and not seen[0].allocation.doubts, lambda: seen[0])
    assert len(told) > 30


BODY = json.dumps(ENVELOPE | {"metadata": []}).encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS
PLAIN = OK + LENGTH + b"\r\n" + BODY

BELIEVED: Mapping[str, bytes] = {
    "another type of content": OK + b"Content-Type: image/png\r\n" + LENGTH + b"\r\n" + BODY,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\n" + BODY,
    "bare newlines": PLAIN.replace(b"\r\n", b"\n"),
    "trailers": CHUNKED + b"X-Trailer: 1\r\n\r\n",
    "closing": OK + b"Connection: close\r\n" + LENGTH + b"\r\n" + BODY,
    "another answer behind": PLAIN + PLAIN,
    "cookies": OK + b"Set-Cookie: a=b; Expires=" + b"1" * 10_000 + b"; Domain=.\r\n" + LENGTH + b"\r\n" + BODY,
}
REFUSED: Mapping[str, bytes] = {
    "202": PLAIN.replace(b"200 OK", b"202 Accepted"),
    "204": PLAIN.replace(b"200 OK", b"204 No Content"),
    "304": PLAIN.replace(b"200 OK", b"304 Not Modified"),
    "302": PLAIN.replace(b"200 OK", b"302 Found\r\nLocation: https://elsewhere/"),
    "a negative status": PLAIN.replace(b"200 OK", b"-200 OK"),
    "a status of 4,000 digits": PLAIN.replace(b"200 OK", b"9" * 4000 + b" OK"),
    "a status of 5,000 digits": PLAIN.replace(b"200 OK", b"9" * 5000 + b" OK"),
    "a text for a status": PLAIN.replace(b"200 OK", b"\x1b[2J" + b"x" * 40_000 + b" OK"),
    "no status": b"x" * 40_000,
    "only announcements": b"HTTP/1.1 100 Continue\r\n\r\n" * 500,
    "announcements in between": b"HTTP/1.1 103 Early Hints\r\n\r\n" + PLAIN,
    "announcements with odd numbers": b"HTTP/1.1 +0100 x\n\n" + PLAIN,
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + PLAIN,
    "a version of 9,000 digits": PLAIN.replace(b"HTTP/1.1", b"HTTP/" + b"9" * 9000 + b".1"),
    "a length of 5,000 digits": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + BODY,
    "a negative length": OK + b"Content-Length: -1\r\n\r\n" + BODY,
    "two lengths": OK + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY,
    "a length that is none": OK + b"Content-Length: \xff" + b"y" * 40_000 + b"\r\n\r\n" + BODY,
    "too short a length": OK + b"Content-Length: 5\r\n\r\n" + BODY,
    "no known framing": OK + b"Transfer-Encoding: " + b"z" * 40_000 + b"\r\n\r\n" + BODY,
    "a chunk of endless length": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n" + BODY,
    "a chunk of negative length": OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n" + BODY,
    "endless extensions of a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 70_000,
    "endless trailers": CHUNKED + b"X-Trailer: 1\r\n" * 20_000,
    "headers that are none": OK + b"\x00\xff\r\n: \r\n\r\n\r\n" + BODY,
    "an error that is async": PLAIN.replace(b'"type": "sync"', b'"type":"async"'),
    "an error without a number": PLAIN.replace(b'"type": "sync"', b'"type":"error"'),
}


@pytest.mark.parametrize("answer", BELIEVED.values(), ids=list(BELIEVED))
@pytest_twisted.ensureDeferred
async def test_what_http_allows_is_read_as_it_is_meant(make_server: MakeServer, pair: KeyPair, answer: bytes) -> None:
    server = await make_server()
    server.fault = Liar(raw={LISTING: answer}, end=True)
    async with running_fleet([settings(server, pair)], BRIEF) as fleet:
        view = await only_view(fleet)
        assert (view.state in ANSWERING, view.reason) == (True, None)
        server.fault = None
        server.state.add_instance("new", {"limits.cpu": "2"})
        await eventually(lambda: fleet.snapshot()[0].allocation.counted == 1)


@pytest.mark.parametrize("answer", REFUSED.values(), ids=list(REFUSED))
@pytest_twisted.ensureDeferred
async def test_what_is_no_answer_in_http_is_refused_in_a_short_sentence(
    make_server: MakeServer, pair: KeyPair, logged: Logged, answer: bytes
) -> None:
    server = await make_server()
    server.fault = Liar(raw={LISTING: answer})
    async with running_fleet([settings(server, pair)], Patience(question=0.5, probe_first=0.05)) as fleet:
        view = await only_view(fleet)
        assert view.state is State.UNREACHABLE
        assert view.reason
        assert len(view.reason) <= 1000
        assert sum(map(len, logged.messages(LogLevel.info) + logged.messages(LogLevel.warn))) < 8000
        server.fault = None
        await eventually(lambda: fleet.snapshot()[0].state in ANSWERING)


@pytest_twisted.ensureDeferred
async def test_a_name_of_a_member_leads_to_no_other_path(make_server: MakeServer, pair: KeyPair) -> None:
    for name in ("../../certificates", "a/b?c#d", "", "\n", "..", "n" * 255):
        server = await make_server()
        environment = SERVER["environment"] | {"server_name": name, "server_clustered": True}
        server.fault = Liar(
            bodies={"/1.0": json.dumps(ENVELOPE | {"metadata": SERVER | {"environment": environment}}).encode()}
        )
        async with running_fleet([settings(server, pair)], BRIEF) as fleet:
            view = await only_view(fleet)
            assert view.state is State.UNREACHABLE
            assert "broke" not in (view.reason or "")


@pytest_twisted.ensureDeferred
async def test_a_long_listing_is_read_and_counted_in_turns(
    make_server: MakeServer, pair: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lxdsched.fleet.work.TURN", 0.0)
    rows = 1500
    listed = [ROW | {"name": str(number), "description": "x" * 200} for number in range(rows)]
    server = await make_server()
    server.fault = Liar(bodies={LISTING: json.dumps(ENVELOPE | {"metadata": listed}).encode()})
    turns = 0
    call: IDelayedCall | None = None

    def turn() -> None:
        nonlocal turns, call
        turns += 1
        call = the_reactor().callLater(0, turn)

    async with running_fleet([settings(server, pair)], Patience(question=60)) as fleet:
        turn()
        view = await only_view(fleet)
        assert call is not None
        call.cancel()
    assert (view.allocation.counted, view.allocation.resources.cpu) == (rows, rows * 1000)
    assert turns > 2 * rows
