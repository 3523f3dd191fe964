"""Hosts that say too much, or what no LXD says."""

from __future__ import annotations

import gzip
import resource
from dataclasses import dataclass

import pytest
import pytest_twisted
from twisted.internet.task import deferLater
from twisted.logger import LogLevel

from lxdsched.fleet.settings import Patience
from lxdsched.model import State
from lxdsched.sandbox.certs import KeyPair
from lxdsched.sandbox.faults import Exchange, Fault, Flood, Garbage, Status
from tests.conftest import Logged
from tests.fleet.conftest import LISTING, MakeServer, settings
from tests.support import ANSWERING, eventually, only_view, running_fleet, the_reactor


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest_twisted.ensureDeferred
async def test_a_host_that_says_too_much_is_hung_up_on(make_server: MakeServer, pair: KeyPair, framing: str) -> None:
    server = await make_server()
    server.fault = Flood(framing=framing)  # type: ignore[arg-type]
    async with running_fleet([settings(server, pair)], Patience(answer_size=64 * 1024, probe_first=30)) as fleet:
        await fleet.views()
        await eventually(lambda: server.requests.in_flight == 0)
        assert server.requests.total == 1


@dataclass(frozen=True, kw_only=True)
class Say(Fault):
    """Whatever the test wants, to the byte."""

    data: bytes

    def strike(self, exchange: Exchange) -> None:
        exchange.write_raw(self.data)


@pytest_twisted.ensureDeferred
async def test_headers_without_end_are_cut_off(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    server.fault = Say(data=b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000)
    async with running_fleet([settings(server, pair)]) as fleet:
        assert (await only_view(fleet)).reason == "its headers are longer than 64 KiB"


@pytest_twisted.ensureDeferred
async def test_a_packed_answer_is_not_unpacked(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    packed = gzip.compress(gzip.compress(b'{"type":"sync","metadata":{"auth":"untrusted"}}' + b" " * 1024**2))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    server.fault = Say(data=head + packed)
    async with running_fleet([settings(server, pair)]) as fleet:
        view = await only_view(fleet)
    # Unpacked it would say that we are not trusted.
    assert view.state is State.UNREACHABLE
    assert "it answers 200, and not as LXD does" in (view.reason or "")


@pytest_twisted.ensureDeferred
async def test_a_host_that_does_not_say_whether_we_are_restricted_is_not_chosen(
    make_server: MakeServer, pair: KeyPair
) -> None:
    server = await make_server()
    server.fault = Status(path="/1.0/certificates", code=500, message="no")
    async with running_fleet([settings(server, pair)]) as fleet:
        view = await only_view(fleet)
    assert (view.state, view.reason) == (State.UNREACHABLE, "it answers /1.0/certificates with 500: no")


@pytest_twisted.ensureDeferred
async def test_a_listing_of_junk_is_not_believed(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    server.fault = Garbage(path=LISTING, body=b'{"type":"sync","metadata":[' + b"0," * 5000 + b"0]}")
    async with running_fleet([settings(server, pair)]) as fleet:
        view = await only_view(fleet)
    assert view.state is State.UNREACHABLE
    assert "more than 1000 of its rows cannot be read" in (view.reason or "")


@pytest_twisted.ensureDeferred
async def test_many_doubtful_instances_are_counted_in_the_log_not_listed(
    make_server: MakeServer, pair: KeyPair, logged: Logged
) -> None:
    server = await make_server()
    for number in range(50):
        server.state.add_instance(f"odd-{number}", {"limits.cpu": "x" * 1000})
    async with running_fleet([settings(server, pair)]) as fleet:
        view = await only_view(fleet)
    assert view.state is State.DOUBTFUL
    assert max(len(doubt) for doubt in view.allocation.doubts.values()) <= 200
    said = [line for line in logged.messages(LogLevel.warn) if "doubtful" in line]
    assert len(said) == 11
    assert said[-1] == f"50 instances on {server.url} are doubtful"


@pytest_twisted.ensureDeferred
async def test_an_odd_instance_is_named_and_its_host_goes_on(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    server.state.add_instance("fine", {"limits.cpu": "2", "limits.memory": "1GiB"})
    async with running_fleet([settings(server, pair)]) as fleet:
        await fleet.views()
        server.state.add_row({"name": "odd", "status": "Error", "project": "default", "location": "none"})
        view = await only_view(fleet)
        assert view.state is State.DOUBTFUL
        assert view.schedulable
        assert "default/odd" in (view.reason or "")
        assert view.allocation.resources.cpu == 2000
        server.state.database.remove_instance("default", "odd")
        assert (await only_view(fleet)).state in ANSWERING


@pytest_twisted.ensureDeferred
async def test_a_flooding_fleet_does_not_grow_the_process(make_server: MakeServer, pair: KeyPair) -> None:
    servers = [await make_server() for _ in range(4)]
    for server in servers:
        server.fault = Flood()
    limit = 4 * 1024**2
    patient = Patience(connect=1, question=3, probe_first=0.02, probe_most=0.02, answer_size=limit)
    async with running_fleet([settings(server, pair) for server in servers], patient) as fleet:
        await fleet.views()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await eventually(lambda: sum(server.requests.total for server in servers) >= 60)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 8 * limit * len(servers)


@pytest_twisted.ensureDeferred
async def test_a_listing_of_millions_is_not_even_decoded(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    rows = b'{"name":"a","status":"b"},' * 600_000
    server.fault = Garbage(path=LISTING, body=b'{"type":"sync","metadata":[' + rows + b"{}]}")
    async with running_fleet([settings(server, pair)], Patience(question=10)) as fleet:
        assert "it lists more than any host can have" in ((await only_view(fleet)).reason or "")


@pytest_twisted.ensureDeferred
async def test_what_a_look_at_the_size_finds_out_is_not_forgotten_by_the_next_listing(
    make_server: MakeServer, pair: KeyPair
) -> None:
    server = await make_server(flavour="incus")
    async with running_fleet([settings(server, pair)], Patience(poll=0.05, capacity=0.1, probe_first=0.05)) as fleet:
        assert (await only_view(fleet)).state in ANSWERING
        server.state.distrust(pair.fingerprint)
        server.state.trust(pair.certificate, restricted=True, projects=["default"])
        await eventually(lambda: fleet.snapshot()[0].state is State.RESTRICTED)
        for _ in range(10):
            assert (await only_view(fleet)).state is State.RESTRICTED


@pytest_twisted.ensureDeferred
async def test_greetings_that_are_not_answered_do_not_pile_up(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)], Patience(question=1.5)) as fleet:
        await fleet.views()
        server.fault = SlowListingNoGreeting()
        for _ in range(4):
            assert (await only_view(fleet)).state in ANSWERING
        await deferLater(the_reactor(), 0.05)
        (host,) = fleet._hosts.values()
        assert len(host._client._connections.open) <= 1


@dataclass(frozen=True, kw_only=True)
class SlowListingNoGreeting(Fault):
    """Lists late, and does not say hello at all."""

    def strike(self, exchange: Exchange) -> None:
        if exchange.request.path == LISTING.encode():
            exchange.later(0.6, exchange.proceed)
