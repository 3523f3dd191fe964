"""Simulated servers whose event streams are listened to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from twisted.internet import reactor as global_reactor  # noqa: TID251  # the tests run on the global reactor

from lxdsched.sandbox import KeyPair, SandboxServer, ServerState
from tests.lxd.rest import IReactor
from tests.lxd.stream import Stream

EVENTS = "/1.0/events"
ALL = "/1.0/instances?recursion=1&all-projects=true"

reactor = cast(IReactor, global_reactor)


@asynccontextmanager
async def running(
    state: ServerState, server_pair: KeyPair, pair: KeyPair, *, ping: float = 10.0
) -> AsyncIterator[SandboxServer]:
    """Serve a state for a while, to a client that is trusted."""
    if pair.fingerprint not in state.database.certificates:
        state.trust(pair.certificate)
    server = SandboxServer(state, reactor, keypair=server_pair, ping=ping)  # type: ignore[arg-type]
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def same(stream: Stream, *actions: str) -> None:
    """Expect these actions, in this order, and no other."""
    heard = await stream.all_heard(len(actions))
    assert [each.action for each in heard] == list(actions), heard


def deaf(stream: Stream) -> None:
    """Let a client read nothing more."""
    cast(Any, stream.transport).transport.pauseProducing()
