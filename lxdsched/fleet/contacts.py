"""How many hosts are met at once, for the first time or again.

Each costs a handshake, and a fleet of hundreds that is met all at once would miss every deadline by its own doing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")

MOST_CONTACTS = 32
"""Hosts that are met at the same time."""
HANDSHAKE = 0.5
"""Seconds for which a host that is met may keep others from being met."""


class Contacts:
    """Gives each its turn."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._turns = DeferredSemaphore(MOST_CONTACTS)

    async def meet(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask something of a host that has to be connected to, when its turn has come.

        The turn is over after the time that a handshake may take, so that silent hosts do not keep others waiting.
        """
        await self._turns.acquire()
        turn = self._clock.callLater(HANDSHAKE, self._turns.release)
        try:
            return await ask()
        finally:
            if turn.active():
                turn.cancel()
                self._turns.release()
