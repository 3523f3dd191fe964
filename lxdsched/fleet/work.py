"""Work that may be long, in steps: what it yields between them is nothing but the chance to do something else."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

T = TypeVar("T")

Work: TypeAlias = Generator[None, None, T]

TURN = 0.01
"""Seconds of work in a turn of the reactor, and of rest after it: no host's answer takes more than half of the time."""


def at_once(work: Work[T]) -> T:
    """Do all of it now."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result


async def in_turns(clock: IReactorTime, work: Work[T]) -> T:
    """Do it in turns, between which the reactor serves others. To cancel leaves undone what is left."""
    began = clock.seconds()
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result
        if not 0 <= clock.seconds() - began < TURN:  # a clock may be set back
            await deferLater(clock, TURN)
            began = clock.seconds()
