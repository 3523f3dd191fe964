"""Listening to LXD servers, and expecting to be told exactly what has happened."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import cast

from twisted.internet.defer import Deferred, gatherResults

from lxdsched.sandbox.certs import KeyPair, make_certificate
from tests.contract.conftest import Lxd
from tests.lxd.rest import IReactor
from tests.lxd.stream import LIFECYCLE, Stream, listening
from tests.support import the_reactor

LIMITS = {"limits.cpu": "1"}

Told = tuple[str, str]
"""Action and source."""

ToldBy = tuple[str, str, str]
"""Action, source and location."""


def reactor() -> IReactor:
    """The reactor that runs the tests."""
    return cast(IReactor, the_reactor())


def stranger() -> KeyPair:
    """A certificate that nobody knows yet."""
    return make_certificate("stranger", now=datetime.now(UTC), client=True)


def a(what: str, name: str = "a", project: str = "") -> Told:
    """An event of an instance."""
    return f"instance-{what}", f"/1.0/instances/{name}" + (f"?project={project}" if project else "")


@asynccontextmanager
async def hearing(lxd: Lxd, pair: KeyPair | None, path: str = LIFECYCLE) -> AsyncIterator[Stream]:
    """Listen to a server for a while."""
    async with listening(lxd.url, reactor(), pair, path) as stream:
        yield stream


async def told(stream: Stream, *expected: Told, location: str = "none") -> None:
    """Expect these events and no other, in whatever order, all from one place."""
    heard = await stream.all_heard(len(expected))
    assert sorted((each.action, each.source) for each in heard) == sorted(expected), heard
    assert {each.location for each in heard} <= {location}, heard


@asynccontextmanager
async def hearing_all(members: tuple[Lxd, ...], pair: KeyPair) -> AsyncIterator[list[Stream]]:
    """Listen to every member of a cluster for a while."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(hearing(member, pair)) for member in members]


async def told_to_all(streams: list[Stream], *expected: ToldBy) -> None:
    """Expect that every member tells these events (action, source, location) and no other, in whatever order."""
    everything = await gatherResults([Deferred.fromCoroutine(stream.all_heard(len(expected))) for stream in streams])
    for heard in everything:
        named = [each._replace(source=re.sub("lxd-move-of-[-0-9a-f]+", "MOVING", each.source)) for each in heard]
        assert sorted(map(tuple, named)) == sorted(expected), heard


def on(member: str, *whats: str, name: str = "a") -> list[ToldBy]:
    """Events of an instance that a member tells."""
    return [(*a(what, name), member) for what in whats]
