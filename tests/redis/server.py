"""Real Redis servers for tests, each with its own directory and port; nothing of them outlives the tests.

Starting and asking block, for some hundredths of a second: nothing here needs the reactor.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis

START_SECONDS = 20.0
POLL_SECONDS = 0.02
# Below what Linux gives to outgoing connections, so that a server that was killed finds its port again.
PORTS = range(20_000, 32_000)


def missing() -> str | None:
    """Return what is not installed here that the tests on a real Redis need, None when nothing is."""
    absent = [program for program in ("redis-server", "redis-sentinel", "setpriv") if shutil.which(program) is None]
    return f"{' and '.join(absent)} cannot be found: make deps installs it" if absent else None


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on just now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.choice(PORTS)
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a server that speaks TLS alone. With `ca` it asks its clients for certificates of that authority.

    `client` are the certificate and the key with which it comes to others, and `cli` to it.
    """

    certificate: Path
    key: Path
    ca: Path | None = None
    client: tuple[Path, Path] | None = None


class RedisServer:
    """One redis-server on a TCP port of `host`, or on a Unix socket alone with `unix`.

    `password` is that of the default user, `acl` are further users as ACL SETUSER has them (`joe on >secret ~* +@all`),
    `options` what else redis.conf may say.
    What it holds is gone when it ends, unless `options` say otherwise; what CONFIG REWRITE wrote stays.
    """

    program = "redis-server"

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        unix: bool = False,
        password: str | None = None,
        acl: Sequence[str] = (),
        tls: TlsFiles | None = None,
        maxmemory: str | None = None,
        replica_of: RedisServer | None = None,
        cluster: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.host = host
        self.port = 0 if unix else port or free_port(host)
        self.password = password
        self.tls = tls
        self.directory = Path(tempfile.mkdtemp(prefix="lxredis"))
        self.path = str(self.directory / "redis.sock") if unix else None
        self._process: subprocess.Popen[bytes] | None = None
        lines = [
            'save ""',
            "repl-diskless-sync-delay 0",
            "daemonize no",
            f"dir {self.directory}",
            f"logfile {self.log}",
        ]
        if unix:
            lines += ["port 0", f"unixsocket {self.path}"]
        elif tls is None:
            lines += [f"bind {host}", f"port {self.port}"]
        else:
            lines += [f"bind {host}", "port 0", f"tls-port {self.port}"]
            lines += [f"tls-cert-file {tls.certificate}", f"tls-key-file {tls.key}"]
            if tls.client is not None:
                lines += [f"tls-client-cert-file {tls.client[0]}", f"tls-client-key-file {tls.client[1]}"]
            lines += [f"tls-auth-clients {'yes' if tls.ca else 'no'}", f"tls-ca-cert-file {tls.ca or tls.certificate}"]
        if password is not None:
            lines += [f'requirepass "{password}"', f'masterauth "{password}"']
        lines += [f"user {user}" for user in acl]
        if maxmemory is not None:
            lines.append(f"maxmemory {maxmemory}")
        if replica_of is not None:
            lines.append(f"replicaof {replica_of.host} {replica_of.port}")
        if cluster:
            lines += ["cluster-enabled yes", f"cluster-port {free_port(host)}", "cluster-node-timeout 2000"]
        lines += [f"{key} {value}" for key, value in (options or {}).items()]
        self._configure(lines)

    def _configure(self, lines: Sequence[str]) -> None:
        self.config.write_text("\n".join(lines) + "\n")

    @property
    def config(self) -> Path:
        """Its configuration, which it writes anew by itself when it is told to."""
        return self.directory / "redis.conf"

    @property
    def log(self) -> Path:
        """What it logs."""
        return self.directory / "redis.log"

    @property
    def address(self) -> str:
        """Where it listens: `host:port`, with brackets for IPv6, or the path of its socket."""
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")

    @property
    def url(self) -> str:
        """Where it listens, as the setting `redis_url` has it, with the password."""
        if self.path is not None:
            return f"unix://{self.path}"
        user = "" if self.password is None else f":{self.password}@"
        return f"{'redis' if self.tls is None else 'rediss'}://{user}{self.address}"

    @property
    def pid(self) -> int | None:
        """Its process, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start it, for the first time or again, and wait until it answers."""
        assert self.pid is None, "it runs already"
        (self.directory / "dump.rdb").unlink(missing_ok=True)  # of a BGSAVE that a test has asked for
        # Should the tests be killed, it dies with them.
        command = [self.program, str(self.config)]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.await_answer()

    def await_answer(self) -> None:
        """Wait until it takes connections, whatever it has to say to them."""
        self.await_reply(lambda _reply: True)

    def await_reply(self, good: Any, *command: str) -> None:
        """Wait until what it replies to a command, an error too, is `good`. Without a command: to PING."""
        end = time.monotonic() + START_SECONDS
        last: object = None
        while time.monotonic() < end:
            assert self.pid is not None, f"it ended by itself: {self._tail()}"
            try:
                last = self.cli(*(command or ("PING",)))
            except hiredis.ReplyError as error:
                last = error
            except OSError as error:
                last = error
                time.sleep(POLL_SECONDS)
                continue
            if good(last):
                return
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"waited in vain for {self.address}: {last!r}, {self._tail()}")

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it, as the power cord does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it where it runs, and start it again in the same place, empty."""
        self.kill()
        self.start()

    def suspend(self) -> None:
        """Let it hang: the kernel still takes connections for it, and nothing is ever answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def cli(self, *command: str | int, timeout: float = 5.0) -> Any:
        """Send one command by a connection of its own; return the reply, texts as str. hiredis.ReplyError for an error.

        It comes as the default user, and believes any certificate.
        """
        reader = hiredis.Reader(encoding="utf-8", errors="replace")
        with contextlib.ExitStack() as stack:
            line = stack.enter_context(self._connect(timeout))
            if self.password is not None:
                _ask(line, reader, "AUTH", self.password)
            return _ask(line, reader, *map(str, command))

    def cleanup(self) -> None:
        """End it, whatever state it is in, and remove its directory."""
        self._end(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _connect(self, timeout: float) -> socket.socket:
        if self.path is not None:
            line = socket.socket(socket.AF_UNIX)
            line.settimeout(timeout)
            line.connect(self.path)
            return line
        line = socket.create_connection((self.host, self.port), timeout)
        if self.tls is None:
            return line
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self.tls.client is not None:
            context.load_cert_chain(*self.tls.client)
        return context.wrap_socket(line)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
        self._process.wait(START_SECONDS)
        self._process = None

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "no log"


def _ask(line: socket.socket, reader: hiredis.Reader, *command: str) -> Any:
    line.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]  # its hints know commands of one word
    while (reply := reader.gets()) is False:
        received = line.recv(65536)
        if not received:
            raise ConnectionResetError("the server has closed the connection")
        reader.feed(received)
    if isinstance(reply, hiredis.ReplyError):
        raise reply
    return reply


@contextlib.contextmanager
def redis_server(**options: Any) -> Iterator[RedisServer]:
    """Run a server, with the arguments of RedisServer, and leave nothing of it behind.

    A replica is ready when it has what its primary has.
    """
    server = RedisServer(**options)
    try:
        server.start()
        if options.get("replica_of") is not None:
            server.await_reply(lambda reply: "master_link_status:up" in str(reply), "INFO", "replication")
        yield server
    finally:
        server.cleanup()
