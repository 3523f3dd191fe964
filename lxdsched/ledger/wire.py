"""One connection to a Redis server or a Sentinel: commands in, replies in their order, until it ends.

txredisapi speaks the protocol. Its own connections know neither deadlines nor our TLS, and try again by themselves;
so from there we have no more than that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hiredis import pack_command
from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from txredisapi import RedisProtocol, ResponseError

from lxdsched.tls import CertificateRefused, describe

MOST_REPLY = 16 * 1024**2
"""Bytes that a server may say until a reply that was asked for is whole: several times what the script tells."""
_UNASKED = "says what nobody has asked for"
_MOST_QUOTED = 200
"""Characters of a server's own words that we pass on."""

_SENTENCES: Final = {
    "NOAUTH": "wants a password, and none is set",
    "WRONGPASS": "refuses the user or the password",
    "LOADING": "is still loading its data",
    "READONLY": "is a read-only replica",
    "OOM": "has no memory left to write (maxmemory)",
    "MISCONF": "takes no writes, because it cannot save them to disk",
    "NOREPLICAS": "takes no writes, because it has too few replicas",
    "MASTERDOWN": "is a replica that has lost its primary",
    "CLUSTERDOWN": "is of a cluster that is down",
    "BUSY": "is busy with somebody's script",
}
"""What error replies mean, by their first word."""


class LinkError(Exception):
    """Redis cannot be used; the message says why, for a person."""


class ErrorReply(Exception):  # noqa: N818
    """What a server answers when it does not do what it was told: the whole line, with its code in front."""

    @property
    def code(self) -> str:
        """The first word."""
        return str(self).partition(" ")[0]

    @property
    def known(self) -> bool:
        """Whether it is said in our own words, and quotes nothing."""
        return self.code in _SENTENCES

    def said_of(self, server: str) -> str:
        """Say it for a person."""
        if self.known:
            return f"{server} {_SENTENCES[self.code]}"
        return f"{server} answers: {str(self)[:_MOST_QUOTED]}"


class _EndedError(Exception):
    """The rest of what was said is not looked at."""


class Wire(RedisProtocol):  # type: ignore[misc]  # txredisapi has no hints
    """One connection. `server` is what to call the other side.

    `when_ended`, once it is set, is told why the connection ended, before those hear it who wait for a reply.
    `ended` is that reason, None until then.
    """

    def __init__(self, server: str) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.server = server
        self.ended: str | None = None
        self.when_ended: Callable[[str], None] | None = None
        self._heard = 0  # bytes since the last reply
        self._asked: dict[Deferred[Any], None] = {}  # those that wait, in their order

    def ask(self, *words: bytes | str | int) -> Deferred[Any]:
        """Send a command. Fails with ErrorReply, or with LinkError when the connection ends.

        Whoever cancels hears nothing of the reply; those of others stay theirs.
        """
        if self.ended is not None:
            return fail(LinkError(self.ended))
        reply = self.execute_command(*words)
        waiter: Deferred[Any] = Deferred(self._forget)
        self._asked[waiter] = None
        reply.addBoth(self._answered, waiter)
        return waiter

    def end(self, reason: str) -> None:
        """Drop the connection and fail all that wait with LinkError. Of several reasons, the first counts."""
        if self.ended is not None:
            return
        self.ended = reason
        if self.transport is not None:
            self.transport.abortConnection()
        if self.when_ended is not None:
            self.when_ended(reason)
        for waiter in tuple(self._asked):
            if self._asked.pop(waiter, waiter) is None:
                waiter.errback(LinkError(reason))

    def connectionMade(self) -> None:  # noqa: N802
        """Take the connection into use."""
        super().connectionMade()
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:  # noqa: N802
        """Take in replies."""
        if self.ended is not None:
            return
        self._heard += len(data)
        if self._heard > MOST_REPLY:
            self.end(f"{self.server} says more than {MOST_REPLY // 1024**2} MiB at once")
            return
        try:
            super().dataReceived(data, unpause)
        except Exception:  # whatever it may be that it says
            self.end(f"{self.server} does not speak the protocol of Redis")

    def replyReceived(self, reply: object) -> None:  # noqa: N802
        """Give a reply to whoever has asked for it, which may be somebody who has gone."""
        if not self.replyQueue.waiting:
            # It would be kept for ever, or taken for the answer to what has not been asked yet.
            refused = isinstance(reply, ResponseError)  # at the door: a server does so before it hangs up
            said = ErrorReply(str(reply)).said_of(self.server) if refused else f"{self.server} {_UNASKED}"
            self.end(said)
            raise _EndedError
        super().replyReceived(reply)

    def tryConvertData(self, data: object) -> object:  # noqa: N802
        """Leave it as it is, without a look at each of its millions of parts."""
        return data

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Tell all who wait."""
        self.end(f"{self.server} {_told(reason.value)}")
        super().connectionLost(reason)

    def _build_command(self, *words: bytes | str | int, **_options: object) -> bytes:
        # Its own is many times slower.
        packed: bytes = pack_command(words)  # type: ignore[arg-type]  # the hints know commands of one word
        return packed

    def _forget(self, waiter: Deferred[Any]) -> None:
        self._asked.pop(waiter, None)

    def _answered(self, result: object, waiter: Deferred[Any]) -> None:
        self._heard = 0
        if self._asked.pop(waiter, waiter) is not None:
            return
        if not isinstance(result, Failure):
            waiter.callback(result)
        elif result.check(ResponseError) is not None:
            waiter.errback(ErrorReply(str(result.value)))
        else:
            waiter.errback(result)


def _told(reason: BaseException | None) -> str:
    if isinstance(reason, CertificateRefused):
        return f"is not trusted: {reason}"
    if isinstance(reason, SSL.Error):
        alerts = describe(reason) if reason.args else "the connection broke off"
        return f"and we do not agree on TLS: {alerts}"
    if isinstance(reason, ConnectionDone | ConnectionLost | ConnectionAborted):
        return "has closed the connection"
    return f"cannot be heard any more: {reason}"
