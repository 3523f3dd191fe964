"""Hosts that die, hang, drip, flood and lie, beside good ones."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import LogLevel

from lxdsched.fleet import inquiry
from lxdsched.fleet.fleet import Fleet
from lxdsched.fleet.settings import Patience
from lxdsched.model import Placement, State
from lxdsched.sandbox.certs import KeyPair
from lxdsched.sandbox.faults import (
    Blackhole,
    CloseMidBody,
    Delay,
    Drip,
    Fault,
    Flood,
    Garbage,
    Hang,
    Refuse,
    Reset,
    Status,
)
from lxdsched.sandbox.records import Hardware
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from tests.conftest import Logged
from tests.fleet.conftest import LISTING, MakeServer, settings
from tests.support import ANSWERING, decided, demand, eventually, only_view, running_fleet, the_reactor, until

QUICK = Patience(connect=0.5, question=0.5, probe_first=0.05, probe_most=0.1, stale=1.0, answer_size=256 * 1024)


async def placed_on(fleet: Fleet) -> str:
    placed = await decided(fleet, demand())
    assert isinstance(placed, Placement)
    return placed.view.host


FAULTS: list[tuple[Fault, str]] = [
    (Refuse(), "no connection: "),
    (Blackhole(), "it did not answer within 0.5 s"),
    (Reset(), "Connection"),
    (Reset(after="request"), "Connection"),
    (Hang(), "it did not answer within 0.5 s"),
    (Drip(seconds=0.1), "it did not answer within 0.5 s"),
    (Delay(seconds=3.0), "it did not answer within 0.5 s"),
    (Flood(), "its answer is longer than "),
    (Flood(framing="length", size=10**9), "its answer is longer than "),
    (Flood(framing="length"), "its answer is longer than "),
    (Flood(framing="close"), "its answer has neither a length nor an end"),
    (Status(code=500, message="sql: database is closed"), "with 500: sql: database is closed"),
    (Status(code=503, message="no leader"), "with 503: no leader"),
    (Garbage(kind="html"), "not as LXD does"),
    (Garbage(kind="truncated"), "not as LXD does"),
    (Garbage(kind="empty"), "not as LXD does"),
    (Garbage(kind="binary"), "not as LXD does"),
    (Garbage(body=b"{}"), "not what LXD answers"),
    (Garbage(kind="wrong-types"), "not as LXD does"),
    (Garbage(kind="not-http"), ""),
    (CloseMidBody(), ""),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS, ids=lambda each: repr(each) if isinstance(each, Fault) else "")
@pytest_twisted.ensureDeferred
async def test_a_faulty_host_is_named_and_passed_over_and_returns_when_healed(
    make_server: MakeServer, pair: KeyPair, fault: Fault, reason: str
) -> None:
    bad, good = await make_server(), await make_server()
    good.state.add_instance("busy", {"limits.cpu": "4"})
    async with running_fleet([settings(bad, pair), settings(good, pair)], QUICK) as fleet:
        assert await placed_on(fleet) == bad.url
        bad.fault = fault
        await bad.settled()
        assert await placed_on(fleet) == good.url
        view = fleet.snapshot()[0]
        assert view.state is State.UNREACHABLE
        assert reason in (view.reason or "")
        bad.fault = None
        await bad.settled()
        await until(fleet, State.LIVE)
        assert await placed_on(fleet) == bad.url


@pytest.mark.parametrize("fault", [fault for fault, _ in FAULTS], ids=repr)
@pytest_twisted.ensureDeferred
async def test_a_host_that_is_faulty_from_the_start_is_no_worse(
    make_server: MakeServer, pair: KeyPair, fault: Fault
) -> None:
    bad, good = await make_server(), await make_server()
    bad.fault = fault
    await bad.settled()
    async with running_fleet([settings(bad, pair), settings(good, pair)], QUICK) as fleet:
        assert await placed_on(fleet) == good.url
        assert fleet.asked


@pytest_twisted.ensureDeferred
async def test_once_a_host_has_failed_no_request_waits_for_it(make_server: MakeServer, pair: KeyPair) -> None:
    bad, good = await make_server(), await make_server()
    reactor = the_reactor()
    patient = Patience(connect=0.5, question=0.5, probe_first=30, probe_most=30)
    async with running_fleet([settings(bad, pair), settings(good, pair)], patient) as fleet:
        await fleet.views()
        bad.fault = Hang()
        await fleet.views()
        before = bad.requests.total
        began = reactor.seconds()
        for _ in range(20):
            assert await placed_on(fleet) == good.url
        # Not a measurement: a single wait for the bad host would be the deadline of 0.5 s each.
        assert reactor.seconds() - began < 20 * patient.question
        assert bad.requests.total == before


@pytest_twisted.ensureDeferred
async def test_any_number_of_requests_share_one_question(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)]) as fleet:
        await fleet.views()
        before = server.requests.paths[LISTING]
        server.fault = Delay(seconds=0.1)
        await DeferredList([Deferred.fromCoroutine(fleet.views()) for _ in range(50)], fireOnOneErrback=True)
        assert server.requests.paths[LISTING] == before + 1


@pytest_twisted.ensureDeferred
async def test_a_request_that_goes_away_leaves_the_shared_question_alone(
    make_server: MakeServer, pair: KeyPair
) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)]) as fleet:
        await fleet.views()
        server.fault = Delay(seconds=0.2)
        leaving, staying = (Deferred.fromCoroutine(fleet.views()) for _ in range(2))
        leaving.addErrback(lambda failure: failure.trap(CancelledError))
        leaving.cancel()
        (view,) = await staying
        assert view.state in ANSWERING


@pytest_twisted.ensureDeferred
async def test_a_scheduling_request_asks_for_the_listing_alone(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)]) as fleet:
        await fleet.views()
        before = dict(server.requests.paths)
        await placed_on(fleet)
        after = dict(server.requests.paths)
    assert {path: after[path] - before.get(path, 0) for path in after if after[path] != before.get(path, 0)} == {
        LISTING: 1
    }


@pytest_twisted.ensureDeferred
async def test_connections_are_kept(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)]) as fleet:
        await until(fleet, State.LIVE)
        for _ in range(10):
            server.state.add_instance(f"c{_}")
            await fleet.views()
    assert server.requests.connections == 2, "one for questions, one for events"


@pytest_twisted.ensureDeferred
async def test_a_host_that_closes_every_connection_is_not_asked_for_its_size_all_the_time(
    make_server: MakeServer, pair: KeyPair
) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], Patience(poll=86400)) as fleet:
        for _ in range(20):
            await fleet.views()
            await server.stop()
            await server.start()
        await deferLater(the_reactor(), 0.3)
        assert server.requests.paths["/1.0/resources"] == 1


@pytest_twisted.ensureDeferred
async def test_a_host_may_have_an_ipv6_address(pair: KeyPair, server_pair: KeyPair) -> None:
    state = ServerState("six")
    state.trust(pair.certificate)
    server = SandboxServer(state, the_reactor(), keypair=server_pair, address="::1")  # type: ignore[arg-type]
    await server.start()
    async with running_fleet([settings(server, pair)]) as fleet:
        view = await only_view(fleet)
    await server.stop()
    assert view.state in ANSWERING


@pytest_twisted.ensureDeferred
async def test_a_host_that_answers_but_cannot_list_is_chosen_after_fresh_ones_and_only_for_a_while(
    make_server: MakeServer, pair: KeyPair, logged: Logged
) -> None:
    hung, good = await make_server(), await make_server()
    good.state.add_instance("busy", {"limits.cpu": "1", "limits.memory": "1GiB"})
    patient = Patience(connect=0.5, question=0.4, probe_first=0.05, probe_most=0.1, stale=3.0)
    async with running_fleet([settings(hung, pair), settings(good, pair)], patient) as fleet:
        assert await placed_on(fleet) == hung.url
        hung.fault = Hang(path=LISTING)
        assert await placed_on(fleet) == good.url
        view = fleet.snapshot()[0]
        assert view.state is State.STALE
        assert view.schedulable
        assert view.reason == "it answers, but did not list its instances within 0.4 s"
        placed = await decided(fleet, demand(targets=frozenset({hung.url})))
        assert isinstance(placed, Placement)
        await eventually(lambda: fleet.snapshot()[0].state is not State.STALE)
        view = fleet.snapshot()[0]
        assert view.state is State.UNREACHABLE
        assert (view.reason or "").endswith("for longer than 3 s")
        assert any("is unreachable: it answers, but" in line for line in logged.messages(LogLevel.warn))
        hung.fault = None
        await until(fleet, State.LIVE)


@pytest_twisted.ensureDeferred
async def test_a_host_that_lists_but_does_not_tell_its_size_anew_goes_on(
    make_server: MakeServer, pair: KeyPair, logged: Logged
) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], Patience(poll=0.05, capacity=0.2, question=0.5)) as fleet:
        await fleet.views()
        server.fault = Status(path="/1.0/resources", code=500, message="no")
        await eventually(lambda: any("does not tell its size anew" in line for line in logged.messages(LogLevel.warn)))
        assert (await only_view(fleet)).state in ANSWERING


@pytest_twisted.ensureDeferred
async def test_a_host_that_came_back_on_a_new_connection_is_asked_for_its_size(
    make_server: MakeServer, pair: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await make_server()
    monkeypatch.setattr(inquiry, "RENEWAL", 0.1)
    async with running_fleet([settings(server, pair)], Patience(capacity=86400, poll=86400)) as fleet:
        assert (await only_view(fleet)).free.cpu == 16_000
        server.state.hardware = Hardware(threads=2)
        await server.stop()
        await server.start()
        await fleet.views()
        await eventually(lambda: fleet.snapshot()[0].free.cpu == 2000)


@pytest_twisted.ensureDeferred
async def test_a_host_that_nobody_asks_about_is_looked_at_all_the_same(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], Patience(question=0.5, poll=0.1, probe_first=30)) as fleet:
        await fleet.views()
        server.fault = Reset()
        await until(fleet, State.UNREACHABLE)


@pytest_twisted.ensureDeferred
async def test_a_host_that_is_down_is_said_to_be_in_few_words(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    await server.stop()
    async with running_fleet([settings(server, pair)], Patience(question=5)) as fleet:
        assert (await only_view(fleet)).reason == "no connection: Connection refused"


@pytest_twisted.ensureDeferred
async def test_the_size_of_a_host_is_asked_again_now_and_then(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], Patience(poll=0.05, capacity=0.1)) as fleet:
        await fleet.views()
        await eventually(lambda: server.requests.paths["/1.0/resources"] >= 3)
