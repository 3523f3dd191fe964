"""When a host that failed is asked again, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from lxdsched.fleet.contacts import MOST_CONTACTS
from lxdsched.fleet.fleet import Fleet
from lxdsched.fleet.settings import Counting, Patience
from lxdsched.model import State
from lxdsched.sandbox.certs import KeyPair
from lxdsched.service import HostMaker
from tests.support import host_settings, pinned


class Reactor(MemoryReactorClock):
    """A reactor without threads."""

    def callFromThread(self, work: Callable[[], None]) -> None:  # noqa: N802
        work()


@pytest.fixture
def reactor() -> MemoryReactorClock:
    return Reactor()  # type: ignore[no-untyped-call]


MakeFleet = Callable[[int], Fleet]


@pytest.fixture
def make_fleet(reactor: MemoryReactorClock, pair: KeyPair) -> Iterator[MakeFleet]:
    """Hosts whose connections end as the test wants; what is left of them at its end is stopped."""
    fleets = []

    def make(count: int) -> Fleet:
        settings = [host_settings(f"https://192.0.2.{number}:8443", pair, pinned("0" * 64)) for number in range(count)]
        maker = HostMaker(Patience(), Counting(), reactor, Random(1))  # type: ignore[arg-type]
        fleets.append(fleet := Fleet(map(maker, settings), reactor, Patience().question))
        return fleet

    yield make
    for fleet in fleets:
        stopping = Deferred.fromCoroutine(fleet.stop())
        for _ in range(200):
            reactor.advance(0)
        assert stopping.called


@pytest.fixture
def fleet(make_fleet: MakeFleet) -> Fleet:
    """One host."""
    return make_fleet(1)


def refuse(reactor: MemoryReactorClock) -> None:
    """Refuse the connection that is being tried."""
    *_, factory, _timeout, _bind = reactor.tcpClients[-1]
    factory.clientConnectionFailed(reactor.connectors[-1], Failure(Refused()))


def wait(reactor: MemoryReactorClock) -> float:
    """Move the clock until the host is asked again; return the seconds that took."""
    tried = len(reactor.tcpClients)
    seconds = 0.0
    while len(reactor.tcpClients) == tried:
        reactor.advance(0.05)
        seconds += 0.05
        assert seconds < 100
    return seconds


def test_a_dead_host_is_probed_at_growing_jittered_intervals_up_to_the_longest(
    reactor: MemoryReactorClock, fleet: Fleet
) -> None:
    fleet.start()
    waits = []
    for _ in range(9):
        refuse(reactor)
        waits.append(wait(reactor))
    for number, seconds in enumerate(waits):
        longest = min(2.0**number, 30.0)
        assert 0.8 * longest <= seconds <= longest + 0.1
    assert len({round(seconds / min(2.0**number, 30.0), 2) for number, seconds in enumerate(waits)}) > 1


def test_no_request_waits_for_a_dead_host_or_asks_it(reactor: MemoryReactorClock, fleet: Fleet) -> None:
    fleet.start()
    refuse(reactor)
    tried = len(reactor.tcpClients)
    for host in fleet._hosts.values():
        assert host.refresh() is None
    assert len(reactor.tcpClients) == tried
    (view,) = fleet.snapshot()
    assert (view.state, view.schedulable) == (State.UNREACHABLE, False)
    assert fleet.asked


def test_a_host_that_is_silent_is_given_up_at_its_deadline(reactor: MemoryReactorClock, fleet: Fleet) -> None:
    fleet.start()
    assert not fleet.asked
    reactor.advance(4.9)
    assert not fleet.asked
    reactor.advance(0.2)
    assert fleet.asked
    (view,) = fleet.snapshot()
    assert view.reason == "it did not answer within 5 s"


def test_a_large_fleet_is_not_met_all_at_once(reactor: MemoryReactorClock, make_fleet: MakeFleet) -> None:
    fleet = make_fleet(100)
    fleet.start()
    assert len(reactor.tcpClients) == MOST_CONTACTS
    refuse(reactor)
    assert len(reactor.tcpClients) == MOST_CONTACTS + 1


def test_a_request_waits_for_a_large_silent_fleet_no_longer_than_for_one_host(
    reactor: MemoryReactorClock, make_fleet: MakeFleet
) -> None:
    fleet = make_fleet(100)
    fleet.start()
    waiting = Deferred.fromCoroutine(fleet.views())
    reactor.advance(4.9)
    assert not waiting.called
    reactor.advance(0.2)
    assert waiting.called
    views = waiting.result
    assert isinstance(views, list)
    assert len(views) == 100
    assert not fleet.asked


def test_when_it_stops_nothing_is_asked_any_more(reactor: MemoryReactorClock, make_fleet: MakeFleet) -> None:
    fleet = make_fleet(40)
    fleet.start()
    refuse(reactor)
    waiting = Deferred.fromCoroutine(fleet.views())
    stopping = Deferred.fromCoroutine(fleet.stop())
    for _ in range(50):
        reactor.advance(0.01)
    assert stopping.called
    assert waiting.called
    assert reactor.getDelayedCalls() == []
    tried = len(reactor.tcpClients)
    reactor.advance(100)
    assert len(reactor.tcpClients) == tried


def test_silent_hosts_keep_others_from_being_met_for_no_longer_than_a_handshake(
    reactor: MemoryReactorClock, make_fleet: MakeFleet
) -> None:
    make_fleet(100).start()
    for turn in range(1, 4):
        reactor.advance(0.5)
        assert len(reactor.tcpClients) == min(100, MOST_CONTACTS * (turn + 1))
