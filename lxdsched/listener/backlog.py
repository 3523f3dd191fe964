"""The connections that the system has made and that we have not taken yet.

Where there is no room for more of them, those who want to connect wait for a second and longer, honest ones too. So as
many as there are are taken one after the other, and nothing is spent on those whose client has left already: who does
nothing but connect and leave makes more of them than we could look after.
"""

from __future__ import annotations

import socket
from errno import EWOULDBLOCK
from time import thread_time
from typing import Any

from twisted.python.failure import Failure

BACKLOG = 4096
"""Connections that the system keeps for us, unless the endpoint says how many."""
SLICE = 0.001
"""Seconds of our time that go into taking connections in a turn of the reactor. At least one is taken."""
LAST = 0.1
"""Seconds of our time that go into taking connections before we listen no more."""
_ALL = 1_000_000


class _Backlog(socket.socket):
    """A listening socket that has no more connections to take once the time for it is over."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(fileno=listening.detach())
        self.setblocking(False)
        self._slice = SLICE
        self._until: float | None = None

    def begin(self, seconds: float = SLICE) -> None:
        """Begin another turn, with so much time."""
        self._slice = seconds
        self._until = None

    def accept(self) -> tuple[socket.socket, Any]:
        """Take the next connection that is still there. BlockingIOError when there is none, or no more time."""
        while True:
            now = thread_time()
            if self._until is None:
                self._until = now + self._slice
            elif now >= self._until:
                raise BlockingIOError(EWOULDBLOCK, "the others can wait")
            connection, address = super().accept()
            if not _has_left(connection):
                return connection, address
            connection.close()


def _has_left(connection: socket.socket) -> bool:
    """Whether the client has sent nothing and will not send anything any more."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def take_all(port: Any) -> None:
    """Let a listening `port` of Twisted's take as many connections in a turn of the reactor as there is time for.

    By itself it takes hardly more of them than in the turn before, few though these were. And those who wait when it
    closes are taken before: the system would reset their connections, and with them what they have asked already.
    """
    backlog = port.socket = _Backlog(port.socket)
    port.fileno = backlog.fileno
    read, close = port.doRead, port.connectionLost

    def take(seconds: float = SLICE) -> None:
        port.numberAccepts = _ALL
        backlog.begin(seconds)
        read()

    def take_rest(reason: Failure) -> None:
        take(LAST)
        close(reason)

    port.doRead, port.connectionLost = take, take_rest
