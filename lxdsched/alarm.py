"""Something that happens unless what is being waited for comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.internet.interfaces import IDelayedCall, IReactorTime


@contextmanager
def alarm(clock: IReactorTime, seconds: float, ring: Callable[[], object]) -> Iterator[IDelayedCall]:
    """Ring after some seconds, unless the block has ended by then. What is handed out says whether it still may."""
    call = clock.callLater(seconds, ring)
    try:
        yield call
    finally:
        if call.active():
            call.cancel()
