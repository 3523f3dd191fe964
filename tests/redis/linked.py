"""Links for tests: opened as the daemon opens its own, and closed with nothing left of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from lxdsched.config.redis import parse_url
from lxdsched.ledger.link import Link, LinkError
from lxdsched.ledger.settings import RedisSettings, RedisTls
from lxdsched.tls import SystemAuthority
from tests.redis.server import RedisServer
from tests.support import the_reactor

COUNT = b"return redis.call('INCRBY', KEYS[1], ARGV[1])"
"""Adds its argument to its key, and returns the sum."""
PATIENCE = 5.0
"""Seconds for what is meant to succeed, on a slow machine too."""


def settings(*urls: str, **more: Any) -> RedisSettings:
    """Read URLs as the configuration does."""
    places = [parse_url(url) for url in urls]
    first = places[0]
    tls = RedisTls(SystemAuthority()) if first.scheme.startswith("rediss") else None
    found = RedisSettings(
        addresses=tuple(address for place in places for address in place.addresses),
        service=first.service,
        account=first.account,
        database=first.database,
        tls=tls,
    )
    return replace(found, **more)


class Linked:
    """A link, and what it told of connections that were lost."""

    def __init__(self, found: RedisSettings, script: bytes = COUNT, clock: IReactorTime | None = None) -> None:
        self.lost: list[str] = []
        reactor = the_reactor()
        self.link = Link(reactor, clock or reactor, found, script, self.lost.append)

    async def open(self, timeout: float = PATIENCE) -> None:
        """Open it."""
        await self.link.open(timeout)

    async def add(self, number: int = 1, key: str = "key", timeout: float = PATIENCE) -> Any:
        """Run the script COUNT."""
        return await self.link.run([key], [number], timeout)

    def adding(self, number: int = 1, key: str = "key", timeout: float = PATIENCE) -> Deferred[Any]:
        """Begin to run it."""
        return Deferred.fromCoroutine(self.link.run([key], [number], timeout))

    async def fault(self, timeout: float = PATIENCE) -> str:
        """Return why it cannot be opened."""
        with pytest.raises(LinkError) as caught:
            await self.open(timeout)
        return str(caught.value)

    async def failure(self, **more: Any) -> str:
        """Return why the script cannot be run."""
        with pytest.raises(LinkError) as caught:
            await self.add(**more)
        return str(caught.value)


@asynccontextmanager
async def linked(found: RedisSettings | RedisServer, **more: Any) -> AsyncIterator[Linked]:
    """Make a link to this Redis, not opened yet."""
    it = Linked(settings(found.url) if isinstance(found, RedisServer) else found, **more)
    try:
        yield it
    finally:
        it.link.close()
        # The connection is gone a moment later.
        await deferLater(the_reactor(), 0.01)


async def fault_of(found: RedisSettings | RedisServer) -> str:
    """Return why the link to a Redis cannot be opened; nothing else may come of it."""
    async with linked(found) as it:
        why = await it.fault()
        assert it.lost == []
        return why
