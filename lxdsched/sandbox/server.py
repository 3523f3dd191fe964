"""One simulated LXD server on a port of its own, over real mutual TLS."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IListeningPort

from lxdsched.sandbox.api import Api
from lxdsched.sandbox.certs import KeyPair
from lxdsched.sandbox.exchange import QuietSite
from lxdsched.sandbox.faults import Fault
from lxdsched.sandbox.state import ServerState
from lxdsched.sandbox.streams import PING_SECONDS, Streams
from lxdsched.sandbox.transport import Condition, Gate, IReactor, RequestCounters, ServerTLS

_BACKLOG = 511


class SandboxServer:
    """A simulated server. It listens from `start()` to `stop()`, unless its `fault` keeps it from that.

    With `port=0` the system chooses one, which then stays the same. `tls` shares what `ServerTLS` holds among servers
    with the same key pair. `ping` is how many seconds lie between the pings on an event stream.
    """

    def __init__(
        self,
        state: ServerState,
        reactor: IReactor,
        *,
        keypair: KeyPair,
        address: str = "127.0.0.1",
        port: int = 0,
        tls: ServerTLS | None = None,
        ping: float = PING_SECONDS,
    ) -> None:
        self.state = state
        self._reactor = reactor
        self._address = address
        self._number = port
        self._running = False
        self._port: IListeningPort | None = None
        self._lock = DeferredLock()
        self._condition = Condition(tls or ServerTLS(keypair))
        self._streams = Streams(state, reactor, ping)
        self._gate = Gate(self._condition, QuietSite(self._condition, Api(state, self._streams), reactor), reactor)

    @property
    def url(self) -> str:
        """The server's address as a host is configured by."""
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"https://{host}:{self._number}"

    @property
    def requests(self) -> RequestCounters:
        """What it was asked."""
        return self._condition.requests

    @property
    def keypair(self) -> KeyPair:
        """The certificate that new connections see."""
        return self._condition.tls.keypair

    def replace_certificate(self, keypair: KeyPair) -> None:
        """Show another certificate from the next handshake on; open connections stay."""
        self._condition.tls = ServerTLS(keypair)
        self._introduce()

    @property
    def fault(self) -> Fault | None:
        """What is wrong with this server, None when nothing is. Takes effect at once, on open connections too."""
        return self._condition.fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        self._condition.fault = fault
        self.settled()

    @property
    def streams(self) -> int:
        """How many event streams are open."""
        return len(self._streams)

    def cut_streams(self) -> None:
        """Reset the connection of every event stream; they are gone after a turn of the reactor."""
        self._streams.cut()

    def send_raw(self, message: str | bytes) -> None:
        """Send any message over every event stream: a text, or bytes as a binary one."""
        self._streams.send(message)

    def write_raw(self, data: bytes) -> None:
        """Write anything to the connection of every event stream, be it a websocket's frame or not."""
        self._streams.write(data)

    def settled(self) -> Deferred[None]:
        """Fires when the port is open or closed as the fault of now demands: that takes a turn of the reactor."""
        return self._lock.run(lambda: Deferred.fromCoroutine(self._match()))

    async def start(self) -> None:
        """Listen. Raises CannotListenError when the address cannot be had."""
        self._running = True
        try:
            await self.settled()
        except BaseException:
            self._running = False
            raise

    async def stop(self) -> None:
        """Stop listening, reset every connection and wait until all are gone."""
        self._running = False
        await self.settled()

    async def _match(self) -> None:
        fault = self._condition.fault
        wanted = self._running and (fault is None or fault.listens)
        if wanted and self._port is None:
            self._port = self._reactor.listenTCP(self._number, self._gate, _BACKLOG, self._address)
            host = self._port.getHost()
            if isinstance(host, IPv4Address | IPv6Address):
                self._number = host.port
            self._introduce()
        elif not wanted:
            port, self._port = self._port, None
            if port is not None:
                closed = port.stopListening()
                if closed is not None:
                    await closed
            await self._gate.abort_all()

    def _introduce(self) -> None:
        """Let `/1.0` tell where and who this is."""
        self.state.address = self.url.removeprefix("https://")
        self.state.server_certificate = self.keypair.cert_pem.decode()
        self.state.server_fingerprint = self.keypair.fingerprint
