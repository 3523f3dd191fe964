"""The one connection over which the ledger's script runs on a Redis: how it is found, made ready and used.

Opening it finds the primary: by Sentinels, or as the first of the configured servers that is one, or where a cluster
said that our keys are. Nothing is tried again here: who uses the link opens it once more when it was lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from hashlib import sha1
from typing import Any, TypeVar, cast
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred, DeferredQueue
from twisted.internet.endpoints import UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IAddress, IReactorFromThreads, IReactorTime, IReactorUNIX, IStreamClientEndpoint
from twisted.internet.protocol import Factory

from lxdsched.alarm import alarm
from lxdsched.ledger.settings import Account, Address, RedisSettings, RedisTls, TcpAddress, UnixAddress
from lxdsched.ledger.wire import ErrorReply, LinkError, Wire
from lxdsched.names import NamedEndpoint, Names
from lxdsched.tls import HostPolicy

__all__ = ["Link", "LinkError"]

T = TypeVar("T")

_PORT = re.compile(r"[0-9]{1,5}")
_LONGEST_CONNECT = 60.0
"""Seconds after which Twisted gives up a connection by itself: the deadlines here come before."""


class Link:
    """Runs one script on the primary.

    Deadlines go by `clock`. `lost` is called once for every connection that was opened and has ended, with the reason,
    before those who wait for it hear of it by LinkError, and never while `run` is being called. `close` calls it not.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        clock: IReactorTime,
        settings: RedisSettings,
        script: bytes,
        lost: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._settings = settings
        self._script = script
        self._digest = sha1(script, usedforsecurity=False).hexdigest()
        self._lost = lost
        self._names = Names(cast(IReactorFromThreads, reactor).callFromThread)
        self._policies: dict[str, HostPolicy] = {}
        self.server = ""  # which run of a server the connection leads to
        self._wire: Wire | None = None
        self._at: Address | None = None  # where the connection leads
        self._owner: TcpAddress | None = None  # who has our keys in a cluster, as far as we were told
        self._opening: Deferred[Any] | None = None

    async def open(self, timeout: float) -> None:
        """Find the primary and get the script ready there, within `timeout` seconds. Raises LinkError.

        A connection that there was is closed before.
        """
        self.close()
        search = self._by_sentinels if self._settings.service is not None else self._in_turn
        self._opening = opening = Deferred.fromCoroutine(search(self._clock.seconds() + timeout))
        try:
            wire = await opening
        except CancelledError:
            if self._opening is opening:
                raise
            raise LinkError("it was closed") from None
        finally:
            if self._opening is opening:
                self._opening = None
        self._wire = wire
        wire.when_ended = self._ended

    async def run(self, keys: Sequence[bytes | str], arguments: Sequence[bytes | str | int], timeout: float) -> Any:
        """Run the script once; return what it returns, texts as bytes.

        Raises LinkError, and the connection is gone, when the server does not answer within `timeout` seconds or
        answers with an error. Runs may overlap. Each is done in the order in which it was called, but where the server
        has forgotten the script.
        """
        wire = self._wire
        if wire is None:
            raise LinkError("there is no connection to Redis")
        words = (len(keys), *keys, *arguments)
        deadline = _Deadline(self._clock, timeout, wire.end, f"{wire.server} did not answer within {timeout:.3g} s")
        try:
            try:
                return await wire.ask("EVALSHA", self._digest, *words)
            except ErrorReply as error:
                if error.code != "NOSCRIPT":
                    raise
                return await wire.ask("EVAL", self._script, *words)
        except ErrorReply as error:
            reason = error.said_of(wire.server)
            if error.code == "MOVED":
                self._owner = _owner(error, self._at)
            wire.end(reason)
            raise LinkError(reason) from None
        finally:
            deadline.cancel()

    def close(self) -> None:
        """Drop the connection, or give up opening it. It may be opened again."""
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.when_ended = None
            wire.end("it was closed")

    def _ended(self, reason: str) -> None:
        self._wire = None
        self._lost(reason)

    async def _in_turn(self, end: float) -> Wire:
        """Try the servers one after the other: all schedulers that share them shall find the same one."""
        owner, self._owner = self._owner, None
        addresses = tuple(dict.fromkeys([owner, *self._settings.addresses] if owner else self._settings.addresses))
        faults = []
        for number, address in enumerate(addresses):
            try:
                # Each that hangs may cost its part of the time alone.
                wire = await self._server(address, (end - self._clock.seconds()) / (len(addresses) - number))
            except LinkError as error:
                faults.append(str(error))
            else:
                self._owner = owner if address == owner else None
                return wire
        raise LinkError("; ".join(faults))

    async def _by_sentinels(self, end: float) -> Wire:
        """Ask all Sentinels at once, and try what they say as it comes."""
        answers: DeferredQueue[Address | LinkError] = DeferredQueue()
        asking = [Deferred.fromCoroutine(self._sentinel(each, end, answers)) for each in self._settings.addresses]
        faults: list[str] = []
        tried: set[Address] = set()
        try:
            for number in range(1, len(asking) + 1):
                answer = await answers.get()
                if isinstance(answer, LinkError):
                    faults.append(str(answer))
                elif answer not in tried:
                    tried.add(answer)
                    left = end - self._clock.seconds()
                    try:
                        # Another Sentinel may know better.
                        return await self._server(answer, left if number == len(asking) else left / 2)
                    except LinkError as error:
                        faults.append(str(error))
            raise LinkError("; ".join(faults))
        finally:
            for each in asking:
                each.cancel()

    async def _sentinel(self, address: Address, end: float, answers: DeferredQueue[Address | LinkError]) -> None:
        wire = Wire(f"Sentinel {address}")
        try:
            left = end - self._clock.seconds()
            answers.put(await self._within(left, self._primary(wire, address), wire))
        except LinkError as error:
            answers.put(error)
        except CancelledError:
            pass  # somebody else was faster
        finally:
            wire.end("it is not needed any more")

    async def _primary(self, wire: Wire, address: Address) -> Address:
        service = self._settings.service or ""
        await self._connect(wire, address)
        await self._login(wire, self._settings.sentinel_account)
        answer = await wire.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        try:
            host, port = answer
            return TcpAddress(host.decode(), int(port))
        except (TypeError, ValueError, AttributeError):
            raise LinkError(f"{wire.server} knows no primary named {service!r}") from None

    async def _server(self, address: Address, seconds: float) -> Wire:
        """Connect to a server and get everything ready; LinkError unless it is a primary."""
        wire = Wire(str(address))
        try:
            await self._within(seconds, self._prepare(wire, address), wire)
        except BaseException:
            wire.end("it is not wanted")
            raise
        self._at = address
        return wire

    async def _prepare(self, wire: Wire, address: Address) -> None:
        await self._connect(wire, address)
        await self._login(wire, self._settings.account)
        if self._settings.database:
            await wire.ask("SELECT", self._settings.database)
        role = await wire.ask("ROLE")
        kind = role[0] if isinstance(role, list) and role else b""
        if kind == b"sentinel":
            raise LinkError(f"{wire.server} is a Sentinel, and no server")
        if kind == b"slave":
            raise LinkError(f"{wire.server} is a replica, and no primary")
        if kind != b"master":
            raise LinkError(f"{wire.server} does not say that it is a primary")
        await wire.ask("SCRIPT", "LOAD", self._script)
        self.server = await self._run_of(wire)

    async def _run_of(self, wire: Wire) -> str:
        try:
            said = await wire.ask("INFO", "server")
        except ErrorReply as error:
            if error.code != "NOPERM":
                raise
            return uuid4().hex  # it may always be another one
        found = re.search(rb"^run_id:(\w+)", said, re.MULTILINE) if isinstance(said, bytes) else None
        return found[1].decode() if found else uuid4().hex

    async def _login(self, wire: Wire, account: Account) -> None:
        if account.password is None:
            return
        try:
            await wire.ask("AUTH", *([account.username] if account.username else []), account.password)
        except ErrorReply as error:
            if "without any password" in str(error):
                raise LinkError(f"{wire.server} has no password, and one is set") from None
            # A server that does not know a command repeats what it was told, and there with the password.
            if not error.known and ("unknown command" in str(error) or account.password in str(error)):
                raise LinkError(f"{wire.server} does not let us say who we are") from None
            raise

    async def _connect(self, wire: Wire, address: Address) -> None:
        try:
            await self._endpoint(address).connect(_Only(wire))
        except (CancelledError, ConnectingCancelledError):
            raise CancelledError from None
        except Exception as error:  # of whatever was told to us as an address
            raise LinkError(f"no connection to {wire.server}: {error}") from None

    def _endpoint(self, address: Address) -> IStreamClientEndpoint:
        if isinstance(address, UnixAddress):
            endpoint: IStreamClientEndpoint = UNIXClientEndpoint(
                cast(IReactorUNIX, self._reactor), address.path, _LONGEST_CONNECT
            )
            return endpoint
        tcp = NamedEndpoint(self._reactor, self._names, address.host, address.port, _LONGEST_CONNECT)
        if self._settings.tls is None:
            return tcp
        return wrapClientTLS(self._policy(self._settings.tls, address.host), tcp)

    def _policy(self, tls: RedisTls, host: str) -> HostPolicy:
        if host not in self._policies:
            self._policies[host] = HostPolicy(tls.identity, tls.trust, host, older=True)
        return self._policies[host]

    async def _within(self, seconds: float, work: Coroutine[Deferred[Any], Any, T], wire: Wire) -> T:
        """Do something on a connection by a deadline; whatever goes wrong there becomes a LinkError."""
        doing = Deferred.fromCoroutine(work)
        with alarm(self._clock, max(seconds, 0), doing.cancel) as deadline:
            try:
                return await doing
            except ErrorReply as error:
                raise LinkError(error.said_of(wire.server)) from None
            except Exception:
                if not deadline.active():
                    raise LinkError(f"{wire.server} did not answer within {seconds:.2g} s") from None
                raise


class _Deadline:
    """Gives up waiting after some seconds, and one turn of the reactor.

    A process that was kept from running for that long may have the answer, and not have read it: that comes first.
    """

    def __init__(self, clock: IReactorTime, seconds: float, give_up: Callable[[str], None], reason: str) -> None:
        self._call = clock.callLater(seconds, self._turn, clock, give_up, reason)

    def cancel(self) -> None:
        """Wait for ever."""
        if self._call.active():
            self._call.cancel()

    def _turn(self, clock: IReactorTime, give_up: Callable[[str], None], reason: str) -> None:
        self._call = clock.callLater(0, give_up, reason)


class _Only(Factory):
    """Has the one protocol that it was given."""

    noisy = False

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def buildProtocol(self, addr: IAddress | None) -> Wire:  # noqa: ARG002, N802
        return self._wire


def _owner(moved: ErrorReply, here: Address | None) -> TcpAddress | None:
    """Read who has the keys: `MOVED SLOT HOST:PORT`, where the host may be left out for the one that says it."""
    host, _, port = str(moved).rpartition(" ")[2].rpartition(":")
    if not host and isinstance(here, TcpAddress):
        host = here.host
    return (
        TcpAddress(host.strip("[]"), int(port)) if host and _PORT.fullmatch(port) and 0 < int(port) < 1 << 16 else None
    )
