"""Hosts that are configured by name."""

from __future__ import annotations

import socket
from threading import Event
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import UnknownHostError

from lxdsched.names import Names
from lxdsched.sandbox.certs import KeyPair
from tests.fleet.conftest import MakeServer
from tests.support import ANSWERING, BRISK, eventually, host_settings, pinned, running_fleet, the_reactor


@pytest_twisted.ensureDeferred
async def test_names_that_nobody_answers_for_keep_no_other_host_from_being_found(
    make_server: MakeServer, pair: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = Event()
    real = socket.getaddrinfo

    def slow(name: str, *rest: Any, **more: Any) -> Any:
        if name != "localhost":
            answered.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    server = await make_server()
    names = [f"gone-{number}.example" for number in range(30)]
    urls = [f"https://{name}:8443" for name in names] + [server.url.replace("127.0.0.1", "localhost")]
    settings = [host_settings(url, pair, pinned(server.keypair.fingerprint)) for url in urls]
    async with running_fleet(settings, BRISK) as fleet:
        await eventually(lambda: fleet.snapshot()[-1].state in ANSWERING)
        answered.set()
        await eventually(lambda: "name resolution" in (fleet.snapshot()[0].reason or ""))


@pytest_twisted.ensureDeferred
async def test_those_who_ask_for_a_name_at_the_same_time_share_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    go = Event()

    def counted(name: str, *_: Any, **__: Any) -> Any:
        asked.append(name)
        go.wait(30)
        return [(socket.AF_INET, 0, 0, "", ("192.0.2.1", 0)), (socket.AF_INET6, 0, 0, "", ("2001:db8::1", 0, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", counted)
    names = Names(the_reactor().callFromThread)
    first, leaving, second = (names.look_up("node-1") for _ in range(3))
    leaving.addErrback(lambda failure: failure.trap(CancelledError))
    leaving.cancel()
    go.set()
    assert await first == await second == ("192.0.2.1", "2001:db8::1")
    assert asked == ["node-1"]


@pytest_twisted.ensureDeferred
async def test_a_name_that_is_not_found_any_more_has_the_addresses_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(the_reactor().callFromThread)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 0, 0, "", ("192.0.2.7", 0))])
    assert await names.look_up("node-1") == ("192.0.2.7",)

    def failing(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", failing)
    assert await names.look_up("node-1") == ("192.0.2.7",)
    with pytest.raises(UnknownHostError, match="node-2: Name or service not known"):
        await names.look_up("node-2")


@pytest_twisted.ensureDeferred
async def test_a_host_is_reached_at_its_second_address_when_the_first_refuses(
    make_server: MakeServer, pair: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await make_server()
    both = [(socket.AF_INET, 0, 0, "", ("127.0.0.99", 0)), (socket.AF_INET, 0, 0, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    url = server.url.replace("127.0.0.1", "node_1")
    async with running_fleet([host_settings(url, pair, pinned(server.keypair.fingerprint))]) as fleet:
        (view,) = await Deferred.fromCoroutine(fleet.views())
    assert view.state in ANSWERING


@pytest_twisted.ensureDeferred
async def test_a_thread_that_cannot_be_had_costs_one_look_up_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(the_reactor().callFromThread)

    class NoThread:
        def __init__(self, **_: object) -> None: ...

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr("lxdsched.names.Thread", NoThread)
        with pytest.raises(UnknownHostError, match="can't start new thread"):
            await names.look_up("localhost")
    assert await names.look_up("localhost")
