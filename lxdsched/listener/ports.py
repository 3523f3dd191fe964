"""Listens where the configuration says so, by any of Twisted's endpoints, with TLS or without."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorTime
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from lxdsched.listener.admission import Admission
from lxdsched.listener.backlog import BACKLOG, take_all
from lxdsched.listener.crowd import Crowd
from lxdsched.listener.reach import is_local, url
from lxdsched.listener.tls import ServerTls
from lxdsched.listener.turns import Turns

UNTAKEN = 128 * 1024
"""Bytes that the system keeps of what a client does not take; connections have it from the port."""


class ListenError(Exception):
    """It cannot be listened there; the message says where and why."""


class Door:
    """One place where clients come in.

    `factory` serves those whom `crowd` lets in, one after the other by `turns`, over TLS where there is some.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: str,
        factory: IProtocolFactory,
        *,
        crowd: Crowd,
        turns: Turns,
        tls: ServerTls | None,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._secure = tls is not None
        within: Any = factory if tls is None else TLSMemoryBIOFactory(tls, False, factory, reactor)
        self._factory = Admission(within, crowd, turns, reactor, secure=self._secure)
        self._port: IListeningPort | None = None

    def open(self) -> None:
        """Listen at once, while ports below 1024 may still be had. ListenError when that cannot be."""
        if self._port is None:
            self._port = _listen(self._reactor, self._endpoint, self._factory)

    async def close(self) -> None:
        """Let nobody in any more but those who have come already."""
        if self._port is not None:
            port, self._port = self._port, None
            await maybeDeferred(port.stopListening)
            await self._factory.let_in()

    @property
    def port(self) -> int:
        """The TCP port that is listened on; 0 without one."""
        return 0 if self._port is None else int(getattr(self._port.getHost(), "port", 0))

    @property
    def shown(self) -> str:
        """Where it is, as people write it: a URL, or the path of a socket."""
        address: Any = None if self._port is None else self._port.getHost()
        if (name := getattr(address, "name", None)) is not None:
            return f"unix:{name.decode('utf-8', 'replace') if isinstance(name, bytes) else name}"
        return url(getattr(address, "host", ""), self.port, secure=self._secure)

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        host = getattr(None if self._port is None else self._port.getHost(), "host", None)
        return host is None or is_local(host)


def _listen(reactor: Any, endpoint: str, factory: Any) -> IListeningPort:
    try:
        waiting: Deferred[IListeningPort] = serverFromString(reactor, endpoint).listen(factory)
    except Exception as error:  # whatever a kind of endpoint makes of its parameters
        raise ListenError(f"cannot listen on {endpoint}: {error}") from None
    found: list[IListeningPort] = []
    failed: list[Failure] = []
    waiting.addCallbacks(found.append, failed.append)
    if failed:
        raise ListenError(_told(endpoint, failed[0].value))
    if not found:
        waiting.addErrback(lambda _: None).cancel()
        raise ListenError(f"cannot listen on {endpoint}: it would only be ready later")
    if isinstance(listening := getattr(found[0], "socket", None), socket.socket):
        # Of clients that do not take their answers, the system would keep megabytes each.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNTAKEN)
        if not endpoint.startswith("systemd:") and "backlog=" not in endpoint:
            listening.listen(BACKLOG)
        take_all(found[0])
    return found[0]


def _told(endpoint: str, error: BaseException | None) -> str:
    if not isinstance(error, CannotListenError):
        return f"cannot listen on {endpoint}: {error}"
    # Twisted says all of it twice, and the endpoint has what nobody wrote.
    where = f"{error.interface}:{error.port}" if error.interface else endpoint
    return f"cannot listen on {where}: {getattr(error.socketError, 'strerror', None) or error.socketError}"
