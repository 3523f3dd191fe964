"""A real LXD or Incus daemon for tests: own directory, own port, own name; nothing of it outlives them."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.task import deferLater
from twisted.web.client import ResponseFailed

from tests.lxd import image, residue
from tests.lxd.driver import certificate_body
from tests.lxd.flavour import LXD, Flavour
from tests.lxd.rest import IReactor, LxdError, RestClient

START_SECONDS = 60.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.02
LOG_TAIL = 2000

# Both look up image servers when they start. A proxy that refuses ends that at once, on any machine.
NO_INTERNET = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9") | {"NO_PROXY": "127.0.0.0/8"}

GUARD = residue.Guard()


def free_port(host: str) -> int:
    """Return a TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class LxdDaemon:
    """One LXD or Incus, listening on `host` (an address of the loopback network) and calling itself `name`.

    It has a storage pool `default`, whose root disk stands in the profile `default`, no network, and the image
    `tiny`; with `bare` it has nothing yet, not even an address, as a cluster's members begin. `cleanup` is the end
    of it, whatever state it is in; should the tests die before that, a guard process does it.
    """

    def __init__(
        self,
        reactor: IReactor,
        name: str,
        *,
        flavour: Flavour = LXD,
        host: str = "127.0.0.1",
        bare: bool = False,
    ) -> None:
        self.name = name
        self.flavour = flavour
        self.host = host
        self.port = free_port(host)
        self.directory = Path(tempfile.mkdtemp(prefix="lxs"))
        GUARD.watch(self.directory)
        self.local = RestClient.over_socket(self.directory / "unix.socket", reactor)
        self._reactor = reactor
        self._furnished = bare
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where it listens, as a scheduler's configuration says it."""
        return f"https://{self.address}"

    @property
    def log(self) -> Path:
        """The daemon's own log."""
        return self.directory.with_suffix(".log")

    @property
    def pid(self) -> int | None:
        """The daemon's process, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def cert_pem(self) -> bytes:
        """The certificate it shows: the cluster's, once it is a member of one."""
        paths = (self.directory / name for name in ("cluster.crt", "server.crt"))
        return next(path for path in paths if path.exists()).read_bytes()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of that certificate's DER, in hexadecimal."""
        return sha256(x509.load_pem_x509_certificate(self.cert_pem).public_bytes(Encoding.DER)).hexdigest()

    async def start(self) -> None:
        """Start it, for the first time or again, and wait until it answers."""
        self._process = self._spawn()
        await self._ready()
        if not self._furnished:
            await self._furnish()
            self._furnished = True

    async def stop(self) -> None:
        """Shut it down in good order, as `lxd shutdown` does, its instances first."""
        await self._end(signal.SIGPWR)

    async def kill(self) -> None:
        """Kill the daemon alone: its running instances go on, and its tmpfs mounts stay."""
        await self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """Let it hang: connections are still accepted by the kernel, and nothing is ever answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `suspend`."""
        self._signal(signal.SIGCONT)

    async def revive(self) -> None:
        """Make sure that it runs and answers, whatever a test did to it."""
        if self.pid is None:
            await self.start()
        else:
            self.resume()

    async def trust(self, cert_pem: bytes, name: str, restricted_projects: list[str] | None = None) -> None:
        """Trust a client's certificate: wholly, or confined to some projects when they are given."""
        body = certificate_body(cert_pem, name, restricted_projects)
        await self.local.request("POST", "/1.0/certificates", body)
        await self.local.aclose()

    def cleanup(self) -> None:
        """End it and everything that runs in it, and leave nothing behind. Blocks for 0.1 s or so."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        residue.clean(self.directory)
        GUARD.release(self.directory)

    def _spawn(self) -> subprocess.Popen[bytes]:
        # A host name of its own, which it tells as its server_name; exec keeps the process id.
        script = 'hostname "$0" && exec "$@"'
        daemon = [self.flavour.program(self.flavour.daemon), "--group", "root", "--logfile", str(self.log)]
        return subprocess.Popen(
            ["unshare", "--uts", "sh", "-c", script, self.name, *daemon],
            env={**self.flavour.environment(self.directory), **NO_INTERNET},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def _furnish(self) -> None:
        pool = {"name": "default", "driver": "dir", "config": {}}
        root = {"root": {"type": "disk", "path": "/", "pool": "default"}}
        await self.local.request("PATCH", "/1.0", {"config": {"core.https_address": self.address}})
        await self.local.request("POST", "/1.0/storage-pools", pool)
        await self.local.request("PUT", "/1.0/profiles/default", {"config": {}, "devices": root})
        await self.import_image()

    async def import_image(self) -> None:
        """Import the image `tiny`."""
        imported = await self.local.request("POST", "/1.0/images", image.build())
        alias = {"name": image.ALIAS, "target": imported["metadata"]["fingerprint"]}
        await self.local.request("POST", "/1.0/images/aliases", alias)
        await self.local.aclose()

    async def _ready(self) -> None:
        for _ in range(round(START_SECONDS / POLL_SECONDS)):
            if self.pid is None:
                raise LxdError(0, f"{self.flavour.daemon} ended while it started: {self._log_tail()}")
            with contextlib.suppress(ConnectError, ConnectionLost, ResponseFailed, LxdError):
                await self.local.request("GET", "/internal/ready")
                await self.local.aclose()
                return
            await self._pause()
        raise LxdError(0, f"{self.flavour.daemon} did not start in {START_SECONDS:.0f} s: {self._log_tail()}")

    async def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        for _ in range(round(STOP_SECONDS / POLL_SECONDS)):
            if self.pid is None:
                return
            await self._pause()
        raise LxdError(0, f"{self.flavour.daemon} did not end in {STOP_SECONDS:.0f} s: {self._log_tail()}")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise ProcessLookupError(f"{self.name} was never started")
        self._process.send_signal(number)

    def _pause(self) -> Deferred[None]:
        return deferLater(self._reactor, POLL_SECONDS)

    def _log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:] if self.log.exists() else ""
