"""A real Redis whose clock stands still until a test lets time pass, and ledgers on it that never have to wait."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import hiredis
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lxdsched.ledger.exchange import script
from lxdsched.ledger.link import LinkError
from lxdsched.ledger.redis import RedisLedger
from tests.redis.server import RedisServer


class StoppedRedis:
    """A Redis that is empty, and the clocks of all that use it. The script takes the time from a key."""

    script = script().replace(b"redis.call('TIME')", b"{redis.call('GET', 'time') / 1000, 0}")

    def __init__(self, server: RedisServer) -> None:
        assert self.script != script()
        self._time = 1_900_000_000_000  # milliseconds
        self.server = server
        self.clock = Clock()
        self.clock.advance(1000)  # so that no time is confused with a duration
        self.lose_everything()

    def lose_everything(self) -> None:
        """Be as empty as after a start."""
        self.server.cli("FLUSHALL")
        self.server.cli("SET", "time", self._time)

    def advance(self, seconds: float) -> None:
        """Let time pass, first for Redis."""
        self._time += round(seconds * 1000)
        self.server.cli("SET", "time", self._time)
        self.clock.advance(seconds)

    def ledger(self, life: float, by: str = "a replica", *, refuse: bool = False) -> tuple[RedisLedger, Wire]:
        """Make a ledger, and what it reaches this Redis by."""
        wires: list[Wire] = []

        def link(lost: Callable[[str], None]) -> Wire:
            wires.append(Wire(self, lost))
            return wires[0]

        ledger = RedisLedger(
            self.clock, life, link, prefix="test", patience=0.25, refuse=refuse, by=by, random=Random(1)
        )
        return ledger, wires[0]


Call = tuple[Sequence[str], Sequence[Any]]


class Wire:
    """Reaches a Redis with nothing in between: a command is answered before anything else happens.

    Calls may be held, and are then done in order, one by one or all. While it is `cut`, nothing goes through; while it
    is `deaf`, answers get lost. To open it takes until it is found, if it is to be `finding`.
    """

    def __init__(self, redis: StoppedRedis, lost: Callable[[str], None]) -> None:
        self.server = "the only one"
        self.cut = self.deaf = False
        self.finding: Deferred[None] | None = None
        self.held: list[tuple[Call, Deferred[Any]]] = []
        self._holding = False
        self._redis = redis
        self._lost = lost
        self._line: socket.socket | None = None

    async def open(self, timeout: float) -> None:
        if self.cut or self.deaf:
            raise LinkError("the wire is cut")
        if self.finding is not None:
            await self.finding
        self.close()
        self._line = socket.create_connection((self._redis.server.host, self._redis.server.port), timeout=10)

    async def run(self, keys: Sequence[str], arguments: Sequence[Any], timeout: float) -> Any:
        if self.cut or self._line is None:
            self.lose("the wire is cut")
            raise LinkError("the wire is cut")
        call = (keys, arguments)
        if self._holding:
            answer: Deferred[Any] = Deferred()
            self.held.append((call, answer))
            return await answer
        answered = self.do((call, Deferred()))
        if self.deaf:
            self.lose("it does not answer")
            raise LinkError("it does not answer")
        return answered

    def hold(self) -> None:
        """Do nothing of what is called from now on."""
        self._holding = True

    def step(self) -> None:
        """Do the first call that is held."""
        call = self.held.pop(0)
        answered = self.do(call)
        if not call[1].called:
            call[1].callback(answered)

    def release(self) -> None:
        """Do all calls that are held, and hold no more."""
        while self.held:
            self.step()
        self._holding = False

    def lose(self, reason: str) -> None:
        """Lose the connection."""
        self.close()
        self._lost(reason)
        held, self.held = self.held, []
        for _, answer in held:
            if not answer.called:
                answer.errback(LinkError(reason))

    def do(self, held: tuple[Call, Deferred[Any]]) -> Any:
        """Do a call, whether or not anybody waits for it."""
        (keys, arguments), _ = held
        with socket.create_connection((self._redis.server.host, self._redis.server.port), timeout=10) as line:
            line.sendall(hiredis.pack_command(("EVAL", self._redis.script, len(keys), *keys, *arguments)))
            reader = hiredis.Reader()
            while (reply := reader.gets()) is False:
                reader.feed(line.recv(1 << 16))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
