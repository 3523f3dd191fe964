"""Hosts that tell by themselves when something happens on them, and what is asked of them then."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from lxdsched.fleet.fleet import Fleet
from lxdsched.fleet.pace import BURST, INTERVAL
from lxdsched.fleet.settings import Patience
from lxdsched.model import State
from lxdsched.sandbox.certs import KeyPair
from lxdsched.sandbox.faults import Delay, Hang, Silence, Status
from lxdsched.sandbox.records import Status as InstanceStatus
from lxdsched.sandbox.server import SandboxServer
from tests.fleet.conftest import LISTING, MakeServer, settings
from tests.support import eventually, only_view, running_fleet, the_reactor, until

EVENTS = "/1.0/events"
PATIENT = Patience(question=2.0, probe_first=0.05, probe_most=0.1, poll=86400)
"""Patience of a fleet that looks at nothing unless it has a reason."""
SIZE = {"limits.cpu": "1", "limits.memory": "1GiB"}


async def pause(seconds: float) -> None:
    await deferLater(the_reactor(), seconds)


def listings(server: SandboxServer) -> int:
    return server.requests.paths[LISTING]


def counted(fleet: Fleet) -> int:
    return fleet.snapshot()[0].allocation.counted


@pytest_twisted.ensureDeferred
async def test_a_live_host_is_asked_nothing_by_requests(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], PATIENT) as fleet:
        await until(fleet, State.LIVE)
        before = server.requests.total
        for _ in range(20):
            assert (await only_view(fleet)).state is State.LIVE
        assert server.requests.total == before


@pytest_twisted.ensureDeferred
async def test_what_happens_on_a_live_host_is_known_though_nobody_asks(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], PATIENT) as fleet:
        await until(fleet, State.LIVE)
        server.state.add_instance("a", SIZE)
        await eventually(lambda: counted(fleet) == 1)
        server.state.set_status("a", InstanceStatus.FROZEN)
        await eventually(lambda: counted(fleet) == 0)
        server.state.database.remove_instance("default", "a")
        await eventually(lambda: fleet.snapshot()[0].allocation.instances == 0)


@pytest_twisted.ensureDeferred
async def test_a_burst_of_events_costs_a_handful_of_listings_and_the_last_event_is_not_lost(
    make_server: MakeServer, pair: KeyPair
) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], PATIENT) as fleet:
        await until(fleet, State.LIVE)
        before, began = listings(server), the_reactor().seconds()
        for number in range(300):
            server.state.add_instance(f"i{number}", SIZE)
            await pause(0.002)
        # All may be counted by a listing that began before the last event was heard: one more is owed to that.
        await eventually(lambda: counted(fleet) == 300 and fleet._hosts[server.url].settled)
        seconds = the_reactor().seconds() - began
        assert listings(server) - before <= BURST + seconds / INTERVAL + 1
        before = listings(server)
        await pause(3 * INTERVAL)
        assert listings(server) == before, "it goes on listing though nothing happens"


@pytest_twisted.ensureDeferred
async def test_a_request_after_an_event_waits_for_what_it_means(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], PATIENT) as fleet:
        await until(fleet, State.LIVE)
        server.fault = Delay(path=LISTING, seconds=0.3)
        server.state.add_instance("a", SIZE)
        host = fleet._hosts[server.url]
        await eventually(lambda: not host.settled)
        assert counted(fleet) == 0
        assert (await only_view(fleet)).allocation.counted == 1


@pytest_twisted.ensureDeferred
async def test_an_event_during_a_listing_is_followed_by_another_one(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], PATIENT) as fleet:
        await until(fleet, State.LIVE)
        server.fault = Delay(path=LISTING, seconds=0.2)
        before = listings(server)
        server.state.add_instance("a", SIZE)
        await eventually(lambda: listings(server) == before + 1)
        server.state.add_instance("b", SIZE)
        await eventually(lambda: counted(fleet) > 0)
        assert (await only_view(fleet)).allocation.counted == 2
        assert listings(server) == before + 2, "the answer on its way may be older than the event"


@pytest_twisted.ensureDeferred
async def test_requests_that_wait_for_the_same_event_share_one_listing(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], PATIENT) as fleet:
        await until(fleet, State.LIVE)
        host = fleet._hosts[server.url]
        server.fault = Delay(path=LISTING, seconds=0.2)
        before = listings(server)
        server.state.add_instance("a", SIZE)
        await eventually(lambda: not host.settled)
        asking = [Deferred.fromCoroutine(only_view(fleet)) for _ in range(30)]
        asking[7].cancel()
        asking[7].addErrback(lambda _: None)
        views = [await each for each in asking if each is not asking[7]]
        assert {view.allocation.counted for view in views} == {1}
        assert listings(server) == before + 1


@pytest.mark.parametrize("fault", [Status(path=EVENTS, code=404), Status(path=EVENTS, code=500), Hang(path=EVENTS)])
@pytest_twisted.ensureDeferred
async def test_a_host_without_a_stream_is_asked_by_each_request_and_says_why(
    make_server: MakeServer, pair: KeyPair, fault: Status | Hang
) -> None:
    server = await make_server()
    server.fault = fault
    patience = Patience(question=0.3, probe_first=0.05, probe_most=0.1, poll=86400)
    async with running_fleet([settings(server, pair)], patience) as fleet:
        await eventually(lambda: fleet.snapshot()[0].reason not in {None, "it has not been asked yet"})
        view = fleet.snapshot()[0]
        assert view.state is State.POLLED
        assert (view.reason or "").startswith("it does not tell when something happens: ")
        before = listings(server)
        for _ in range(3):
            await fleet.views()
        assert listings(server) == before + 3
        server.fault = None
        await until(fleet, State.LIVE)


@pytest_twisted.ensureDeferred
async def test_a_stream_that_is_cut_comes_back_and_what_happened_meanwhile_is_known(
    make_server: MakeServer, pair: KeyPair
) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], PATIENT) as fleet:
        for number in range(5):
            await until(fleet, State.LIVE)
            server.cut_streams()
            server.state.add_instance(f"i{number}", SIZE)
            await eventually(lambda: fleet.snapshot()[0].state is State.POLLED or server.streams == 1)
            await eventually(lambda number=number: counted(fleet) == number + 1)  # type: ignore[misc]


@pytest_twisted.ensureDeferred
async def test_a_stream_that_falls_silent_is_given_up(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    patience = Patience(question=2.0, probe_first=0.05, probe_most=0.1, poll=86400, ping=0.2)
    async with running_fleet([settings(server, pair)], patience) as fleet:
        await until(fleet, State.LIVE)
        server.fault = Silence()
        server.state.add_instance("a", SIZE)
        await until(fleet, State.POLLED)
        assert "nothing" in (fleet.snapshot()[0].reason or "")
        assert (await only_view(fleet)).allocation.counted == 1
        server.fault = None
        await until(fleet, State.LIVE)


@pytest_twisted.ensureDeferred
async def test_a_live_host_is_looked_at_now_and_then_all_the_same(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    patience = Patience(question=2.0, probe_first=0.05, probe_most=0.1, poll=0.3)
    async with running_fleet([settings(server, pair)], patience) as fleet:
        await until(fleet, State.LIVE)
        before = listings(server)
        await eventually(lambda: listings(server) >= before + 2)
        assert fleet.snapshot()[0].state is State.LIVE


@pytest_twisted.ensureDeferred
async def test_what_concerns_no_instance_causes_no_listing(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], PATIENT) as fleet:
        await until(fleet, State.LIVE)
        await pause(0.1)
        before = listings(server)
        for action in ("instance-exec", "image-created", "network-updated", "storage-pool-created"):
            server.send_raw(json.dumps({"type": "lifecycle", "metadata": {"action": action, "source": "/1.0/x"}}))
        await pause(0.3)
        assert listings(server) == before
        server.send_raw(json.dumps({"type": "lifecycle", "metadata": {"action": "instance-new-thing"}}))
        await eventually(lambda: listings(server) == before + 1)
        server.send_raw("what is this")
        await eventually(lambda: listings(server) == before + 2)


@pytest_twisted.ensureDeferred
async def test_a_host_is_drained_and_returned_by_its_own_configuration(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], PATIENT) as fleet:
        await until(fleet, State.LIVE)
        server.state.database.config["user.lxdsched.drain"] = "true"
        server.state.database.changed("config-updated", "/1.0")
        await until(fleet, State.DRAINED)
        assert not fleet.snapshot()[0].schedulable
        assert fleet.snapshot()[0].reason == "it is drained: its configuration says user.lxdsched.drain=true"
        server.state.add_instance("a", SIZE)
        await eventually(lambda: counted(fleet) == 1)
        del server.state.database.config["user.lxdsched.drain"]
        server.state.database.changed("config-updated", "/1.0")
        await until(fleet, State.LIVE)


@pytest_twisted.ensureDeferred
async def test_a_live_host_that_cannot_list_any_more_is_found_out_by_the_next_event(
    make_server: MakeServer, pair: KeyPair
) -> None:
    server = await make_server()
    patience = Patience(question=0.4, probe_first=0.05, probe_most=0.1, poll=86400, stale=60)
    async with running_fleet([settings(server, pair)], patience) as fleet:
        await until(fleet, State.LIVE)
        server.fault = Hang(path=LISTING)
        server.state.add_instance("a", SIZE)
        await until(fleet, State.STALE)
        assert server.streams == 1
        server.fault = None
        await until(fleet, State.LIVE)
        assert counted(fleet) == 1
