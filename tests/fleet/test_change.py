"""Hosts come and go while the fleet is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest_twisted
from twisted.internet.task import deferLater

from lxdsched.fleet.fleet import Fleet
from lxdsched.fleet.host import Host
from lxdsched.fleet.settings import Counting, HostSettings, Patience
from lxdsched.model import State, View
from lxdsched.sandbox.certs import KeyPair, make_certificate
from lxdsched.sandbox.faults import Hang
from lxdsched.service import HostMaker
from tests.fleet.conftest import MakeServer, settings
from tests.support import ANSWERING, BRISK, eventually, host_settings, running_fleet, the_reactor, until

SHORT = Patience(question=0.5, probe_first=0.05, probe_most=0.2)


class Watch:
    """What a scheduler is told of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.shown: list[View] = []
        self.gone: list[str] = []
        fleet.watch(self.shown.append, self.gone.append)
        self.shown.clear()


def made(*those: HostSettings, patience: Patience = BRISK) -> Sequence[Host]:
    make = HostMaker(patience, Counting(), the_reactor(), Random(1))
    return [make(each) for each in those]


@pytest_twisted.ensureDeferred
async def test_a_host_comes_in_when_it_was_asked_and_not_before(make_server: MakeServer, pair: KeyPair) -> None:
    first, second = await make_server(), await make_server()
    async with running_fleet([settings(first, pair)]) as fleet:
        await until(fleet, State.LIVE)
        watch = Watch(fleet)
        fleet.change(made(settings(second, pair)), [])
        assert [view.host for view in fleet.snapshot()] == [first.url]
        assert fleet.asked
        await eventually(lambda: len(fleet.snapshot()) == 2)
        await until(fleet, State.LIVE)
        assert all(view.state in ANSWERING for view in watch.shown)
        assert {view.host for view in watch.shown} == {second.url}
        second.state.add_instance("a")
        await eventually(lambda: len(watch.shown[-1].allocation.members) == 1)


@pytest_twisted.ensureDeferred
async def test_a_host_that_answers_nobody_comes_in_as_unreachable(make_server: MakeServer, pair: KeyPair) -> None:
    first, second = await make_server(), await make_server()
    second.fault = Hang()
    async with running_fleet([settings(first, pair)], SHORT) as fleet:
        fleet.change(made(settings(second, pair), patience=SHORT), [])
        await eventually(lambda: len(fleet.snapshot()) == 2)
        assert fleet.snapshot()[1].state is State.UNREACHABLE
        second.fault = None
        await until(fleet, State.LIVE)


@pytest_twisted.ensureDeferred
async def test_a_host_that_goes_is_not_asked_any_more_and_those_who_watch_are_told(
    make_server: MakeServer, pair: KeyPair
) -> None:
    first, second = await make_server(), await make_server()
    async with running_fleet([settings(first, pair), settings(second, pair)]) as fleet:
        await until(fleet, State.LIVE)
        watch = Watch(fleet)
        fleet.change([], [second.url, "https://nobody"])
        assert watch.gone == [second.url]
        assert [view.host for view in await fleet.views()] == [first.url]
        await eventually(lambda: second.requests.in_flight == 0)
        before = second.requests.total
        second.state.add_instance("a")
        first.state.add_instance("a")
        await eventually(lambda: bool(watch.shown))
        assert {view.host for view in watch.shown} == {first.url}
        assert second.requests.total == before


@pytest_twisted.ensureDeferred
async def test_a_host_that_changes_is_never_away(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server(name="one")
    async with running_fleet([settings(server, pair)]) as fleet:
        await until(fleet, State.LIVE)
        watch = Watch(fleet)
        (before,) = fleet._hosts.values()
        fleet.change(made(replace(settings(server, pair), over_commit_percent=300)), [])
        assert fleet.snapshot()[0].state is State.LIVE
        await eventually(lambda: fleet._hosts[server.url] is not before)
        await until(fleet, State.LIVE)
        assert watch.gone == []
        assert all(view.state in ANSWERING for view in watch.shown)
        cores = [view.capacity.usable.cpu for view in watch.shown if view.capacity is not None]
        old = before.view.capacity
        assert old is not None
        assert cores[-1] == 3 * old.usable.cpu
        await eventually(lambda: not before._client._connections.open)


@pytest_twisted.ensureDeferred
async def test_one_that_was_about_to_come_in_can_still_go_or_change(make_server: MakeServer, pair: KeyPair) -> None:
    first, second = await make_server(), await make_server()
    second.fault = Hang()
    async with running_fleet([settings(first, pair)]) as fleet:
        await until(fleet, State.LIVE)
        watch = Watch(fleet)
        fleet.change(made(settings(second, pair)), [])
        fleet.change(made(replace(settings(second, pair), over_commit_percent=200)), [])
        fleet.change([], [second.url])
        await eventually(lambda: not fleet._leaving)
        second.fault = None
        await deferLater(the_reactor(), 0.3)
        assert [view.host for view in fleet.snapshot()] == [first.url]
        assert watch.gone == []
        assert watch.shown == []


@pytest_twisted.ensureDeferred
async def test_what_was_trusted_at_first_is_trusted_still_when_the_host_changes(
    make_server: MakeServer, pair: KeyPair
) -> None:
    server = await make_server()
    make = HostMaker(BRISK, Counting(), the_reactor(), Random(1))
    fleet = Fleet([make(host_settings(server.url, pair))], the_reactor(), 5.0)
    fleet.start()
    try:
        await until(fleet, State.LIVE)
        server.replace_certificate(make_certificate("another", now=datetime.now(UTC)))
        fleet.change([make(replace(host_settings(server.url, pair), over_commit_percent=300))], [])
        await eventually(lambda: "its certificate has changed" in (fleet.snapshot()[0].reason or ""))
    finally:
        await fleet.stop()


@pytest_twisted.ensureDeferred
async def test_nothing_is_kept_of_a_host_that_goes_before_it_was_asked(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([settings(server, pair)]) as fleet:
        fleet.change([], [server.url])
        assert fleet._unsettled == {}
        assert await fleet.views() == []
        assert fleet.asked
