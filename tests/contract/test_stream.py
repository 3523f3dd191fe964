"""What we hear of a server's events, and what we make of it when they cannot be heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from lxdsched.fleet.client import HostClient, HostError
from lxdsched.fleet.events import Event
from lxdsched.fleet.settings import Patience
from lxdsched.fleet.subscription import Subscription
from lxdsched.model import State
from lxdsched.names import Names
from lxdsched.sandbox.certs import KeyPair, make_certificate
from tests.contract.conftest import Lxd
from tests.lxd.fixtures import RealLxd
from tests.support import eventually, host_settings, pinned, the_reactor

BRISK = Patience(question=2.0, probe_first=0.1, probe_most=0.2)
QUICK = replace(BRISK, ping=0.3)
"""For tests that wait for a silence, or that there is none."""
SMALL = {"limits.cpu": "1", "limits.memory": "1GiB"}


class Ear:
    """What a subscription tells: events as action and source, `opened` and the reasons why it was lost."""

    def __init__(self, url: str, fingerprint: str, pair: KeyPair, patience: Patience = BRISK) -> None:
        self.heard: list[tuple[str, str]] = []
        self.opened = 0
        self.lost: list[str] = []
        settings = host_settings(url, pair)
        names = Names(the_reactor().callFromThread)
        self.client = HostClient(the_reactor(), names, settings, pinned(fingerprint), patience)
        self.subscription = Subscription(
            self.client.listen,
            the_reactor(),
            patience,
            Random(1),
            opened=self._open,
            heard=self._hear,
            lost=self.lost.append,
        )

    def _open(self) -> None:
        self.opened += 1

    def _hear(self, event: Event) -> None:
        self.heard.append((event.action, event.source))

    async def hears(self, *expected: tuple[str, str]) -> None:
        """Wait a second at most for events, and forget them all."""
        end = the_reactor().seconds() + 1
        while not set(expected) <= set(self.heard):
            assert the_reactor().seconds() < end, f"heard only {self.heard}"
            await deferLater(the_reactor(), 0.01)
        self.heard.clear()


@asynccontextmanager
async def listening(url: str, fingerprint: str, pair: KeyPair, patience: Patience = BRISK) -> AsyncIterator[Ear]:
    """Listen to a server, from the moment that its stream is open."""
    ear = Ear(url, fingerprint, pair, patience)
    ear.subscription.start()
    try:
        await eventually(lambda: ear.subscription.open, lambda: ear.subscription.reason)
        yield ear
    finally:
        await ear.subscription.stop()
        await ear.client.close()
    assert not ear.client._connections.streams


@pytest_twisted.ensureDeferred
async def test_what_happens_to_instances_is_heard_within_a_second(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    lxd = lxds[0].driver
    await lxd.create_project("team-a")
    async with listening(lxds[0].url, lxds[0].fingerprint, scheduler_pair) as ear:
        await lxd.create("job", config=SMALL, startable=True)
        await ear.hears(("instance-created", "/1.0/instances/job"))
        await lxd.start("job")
        await ear.hears(("instance-started", "/1.0/instances/job"))
        await lxd.freeze("job")
        await ear.hears(("instance-paused", "/1.0/instances/job"))
        await lxd.unfreeze("job")
        await ear.hears(("instance-resumed", "/1.0/instances/job"))
        await lxd.set_config("job", {"limits.cpu": "2"})
        await ear.hears(("instance-updated", "/1.0/instances/job"))
        await lxd.stop("job")
        await ear.hears(("instance-stopped", "/1.0/instances/job"))
        await lxd.delete("job")
        await ear.hears(("instance-deleted", "/1.0/instances/job"))
        await lxd.create("elsewhere", config=SMALL, project="team-a")
        await ear.hears(("instance-created", "/1.0/instances/elsewhere?project=team-a"))
        assert (ear.opened, ear.lost) == (1, [])


@pytest_twisted.ensureDeferred
async def test_a_server_that_dies_is_lost_and_heard_again_when_it_is_back(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    async with listening(lxds[0].url, lxds[0].fingerprint, scheduler_pair) as ear:
        await lxds[0].kill()
        await eventually(lambda: len(ear.lost) == 1)
        assert "its event stream ended" in ear.lost[0]
        await eventually(lambda: "no connection" in (ear.subscription.reason or ""), lambda: ear.subscription.reason)
        assert not ear.subscription.open
        await lxds[0].revive()
        await eventually(lambda: ear.subscription.open, lambda: ear.subscription.reason)
        await lxds[0].driver.create("job", config=SMALL)
        await ear.hears(("instance-created", "/1.0/instances/job"))
        assert (ear.opened, len(ear.lost)) == (2, 1)


@pytest_twisted.ensureDeferred
async def test_a_stream_stays_for_as_long_as_the_server_answers(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    async with listening(lxds[0].url, lxds[0].fingerprint, scheduler_pair, QUICK) as ear:
        await deferLater(the_reactor(), 4 * QUICK.ping)
        assert (ear.opened, ear.lost, ear.heard) == (1, [], [])


@pytest.mark.real_lxd
@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_is_lost_after_two_pings(
    fresh_lxds: tuple[RealLxd, ...], scheduler_pair: KeyPair
) -> None:
    daemon = fresh_lxds[0].daemon
    await daemon.trust(scheduler_pair.cert_pem, "scheduler")
    async with listening(daemon.url, daemon.fingerprint, scheduler_pair, QUICK) as ear:
        daemon.suspend()
        await eventually(lambda: ear.lost == ["its event stream is silent: nothing came for 0.6 s"])
        assert not ear.subscription.open
        daemon.resume()
        await eventually(lambda: ear.subscription.open, lambda: ear.subscription.reason)


@pytest_twisted.ensureDeferred
async def test_a_stranger_hears_nothing(lxds: tuple[Lxd, ...]) -> None:
    stranger = make_certificate("stranger", now=datetime.now(UTC), client=True)
    ear = Ear(lxds[0].url, lxds[0].fingerprint, stranger)
    with pytest.raises(HostError) as caught:
        await ear.client.listen(lambda _: None, ear.lost.append)
    assert caught.value.state is State.RESTRICTED
    assert caught.value.reason.startswith("it does not let us see /1.0/events: ")
    await eventually(lambda: not ear.client._connections.streams)
    assert ear.lost == []
