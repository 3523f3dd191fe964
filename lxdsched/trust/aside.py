"""Has something done beside the reactor: a disk may take its time, or hang for ever, and requests go on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

T = TypeVar("T")


class Aside:
    """Does each piece of work in a thread of its own, which does not keep the process from ending.

    `in_reactor` has the reactor call something, from another thread.
    """

    def __init__(self, in_reactor: Callable[[Callable[[], object]], object]) -> None:
        self._in_reactor = in_reactor

    def do(self, work: Callable[[], T]) -> Deferred[T]:
        """Do the work. To cancel is not to wait any longer; the work itself goes on."""
        done: Deferred[T] = Deferred()
        try:
            Thread(target=self._work, args=(work, done), name="lxdsched trust", daemon=True).start()
        except RuntimeError as error:  # no thread is to be had
            return fail(error)
        return done

    def _work(self, work: Callable[[], T], done: Deferred[T]) -> None:
        try:
            result = work()
        except BaseException:
            self._in_reactor(partial(done.errback, Failure()))
        else:
            self._in_reactor(partial(done.callback, result))
