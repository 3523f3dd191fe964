"""Who gets in, on real sockets: every kind of listener with every kind of credential."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxdsched.sandbox.certs import make_certificate
from tests.e2e.daemon import PATIENCE, TOLD_TO_END, TWISTD, clean_environment, free_port, run
from tests.e2e.guarded import NOW, REFUSED, Credential, Outfit, Visitor, guarded
from tests.e2e.replicas import Fleet, simulated

LISTENERS = ("plain", "unix", "tls", "tls, optional", "tls, required")
KEYS = {
    "none": "unauthenticated",
    "key": "placed",
    "key as password": "placed",
    "key, wrong": "unauthenticated",
    "key, unknown": "unauthenticated",
    "key, expired": "unauthenticated",
    "key, revoked": "unauthenticated",
    "key, wrong right": "forbidden",
}
CERTIFICATES = {
    "pinned": "placed",
    "pinned, expired": "unauthenticated",
    "pinned, not yet valid": "unauthenticated",
    "pinned, wrong right": "forbidden",
    "unknown": "unauthenticated",
    "named": "placed",
    "named, expired": "unauthenticated",
    "named, revoked": "unauthenticated",
    "named, by others": "unauthenticated",
    "named, one below": "placed",
    "named, one below that was revoked": "unauthenticated",
    "named, one below that may not": "unauthenticated",
    "named, for servers": "unauthenticated",
    "named, unknown name": "unauthenticated",
    "named, wrong right": "forbidden",
    "wrong key, pinned": "unauthenticated",
}


def expected(listener: str, credential: str) -> str:
    """Say what a client shall be told."""
    if credential in KEYS:
        # Where a certificate is required, a key alone gets nobody as far as to ask.
        return REFUSED if listener == "tls, required" else KEYS[credential]
    told = CERTIFICATES[credential]
    if listener == "tls, optional":
        return told
    if listener == "tls, required":
        return REFUSED if told == "unauthenticated" and credential != "wrong key, pinned" else told
    return "unauthenticated"  # nobody asks for certificates


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """One simulated host."""
    with simulated(1) as it:
        yield it


@pytest.fixture
def outfit(tmp_path: Path) -> Outfit:
    return Outfit(tmp_path)


@pytest.mark.parametrize("listener", LISTENERS)
def test_exactly_those_get_in_who_should(fleet: Fleet, outfit: Outfit, listener: str) -> None:
    with guarded(fleet.hosts, outfit, listener) as (daemon, visitor):
        told = {name: visitor.ask(credential) for name, credential in outfit.credentials.items()}
        assert told == {name: expected(listener, name) for name in outfit.credentials}
        health = visitor.ask(outfit.credentials["none"], "GET", "/healthz")
        assert health == (REFUSED if listener == "tls, required" else "answered")
        daemon.running.end()
        secrets = list(outfit.credentials["key"].headers.values())
        assert not any(secret.split("_", 2)[2] in line for secret in secrets for line in daemon.running.lines)
        assert [line for line in daemon.running.lines if "traceback" in line.lower()] == []


def soon(visitor: Visitor, credential: Credential, told: str) -> None:
    """Wait until a client is told something: files are looked at every few seconds."""
    until = time.monotonic() + PATIENCE
    while (found := visitor.ask(credential)) != told:
        assert time.monotonic() < until, found
        time.sleep(0.1)


def test_what_changes_in_the_files_counts_from_then_on(fleet: Fleet, outfit: Outfit) -> None:
    key, named = outfit.credentials["key"], outfit.credentials["named"]
    with guarded(fleet.hosts, outfit, "tls, optional") as (daemon, visitor):
        by_key, by_certificate = visitor.connect(), visitor.connect(named.pair)
        assert visitor.ask_on(by_key, key.headers) == "placed"
        assert visitor.ask_on(by_certificate, {}) == "placed"
        del outfit.clients["right"]
        outfit.write()
        soon(visitor, key, "unauthenticated")
        # The same on the connection that was made before.
        assert visitor.ask_on(by_key, key.headers) == "unauthenticated"
        assert named.pair is not None
        outfit.revoke(named.pair)
        soon(visitor, named, "unauthenticated")
        by_certificate.close()
        by_certificate = visitor.connect(named.pair)
        assert visitor.ask_on(by_certificate, {}) == "unauthenticated"
        by_key.close()
        by_certificate.close()
        daemon.running.end()


def test_an_old_connection_does_not_outlive_the_revocation_of_its_certificate(fleet: Fleet, outfit: Outfit) -> None:
    named = outfit.credentials["named"]
    assert named.pair is not None
    with guarded(fleet.hosts, outfit, "tls, required") as (daemon, visitor):
        old = visitor.connect(named.pair)
        assert visitor.ask_on(old, {}) == "placed"
        outfit.revoke(named.pair)
        daemon.running.process.send_signal(signal.SIGHUP)
        daemon.running.wait_for("read again")
        old.auto_open = 0
        # Not for long, since nobody reads the daemon's log meanwhile.
        told = [visitor.ask_on(old, {}) for _ in range(3)]
        assert told[-1] == REFUSED
        old.close()
        assert visitor.ask(named) == REFUSED
        daemon.running.end()


def test_a_new_certificate_is_shown_once_it_is_there(fleet: Fleet, outfit: Outfit) -> None:
    key = outfit.credentials["key"]
    with guarded(fleet.hosts, outfit, "tls") as (daemon, visitor):
        old = visitor.connect()
        assert visitor.ask_on(old, key.headers) == "placed"
        outfit.server = make_certificate("localhost", now=NOW, san=["127.0.0.1"])
        assert visitor.ask(key) == REFUSED  # it does not trust the certificate of before any more
        outfit.server.write(outfit.directory, "server")
        daemon.running.process.send_signal(signal.SIGHUP)
        daemon.running.wait_for("read again")
        assert visitor.ask(key) == "placed"
        assert visitor.ask_on(old, key.headers) == "placed"
        old.close()
        daemon.running.end()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_taken_up_again_so_that_certificates_are_looked_at_anew(
    fleet: Fleet, outfit: Outfit, version: ssl.TLSVersion
) -> None:
    with guarded(fleet.hosts, outfit, "tls, optional") as (daemon, visitor):
        context = ssl.create_default_context(cadata=outfit.server.cert_pem.decode())
        context.maximum_version = version
        named = outfit.credentials["named"]
        assert named.pair is not None
        context.load_cert_chain(*named.pair.write(outfit.directory, "visitor"))
        sessions: list[ssl.SSLSession | None] = [None]
        for _ in range(3):
            with (
                socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as plain,
                context.wrap_socket(plain, server_hostname="localhost", session=sessions[-1]) as secure,
            ):
                secure.sendall(b"GET /hosts HTTP/1.1\r\nConnection: close\r\n\r\n")
                assert b"forbidden" in b"".join(iter(lambda: secure.recv(4096), b""))
                assert not secure.session_reused
                sessions.append(secure.session)
        assert visitor.ask(named) == "placed"
        daemon.running.end()


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("clients.toml", "[right]\nrights = ['everything']\n", "right.rights"),
        ("clients.toml", "[right\n", "clients.toml"),
        ("server.key", "", "server.key: is empty"),
        ("ca.crl", "nothing", "holds no revocation list"),
    ],
)
def test_a_file_that_cannot_be_used_changes_nothing_and_is_told(
    fleet: Fleet, outfit: Outfit, file: str, content: str, fault: str
) -> None:
    with guarded(fleet.hosts, outfit, "tls, optional") as (daemon, visitor):
        (outfit.directory / file).write_text(content)
        daemon.running.process.send_signal(signal.SIGHUP)
        line = json.loads(daemon.running.wait_for("not taken over"))
        assert line["level"] == "ERROR"
        assert fault in line["msg"]
        assert visitor.ask(outfit.credentials["key"]) == "placed"
        assert visitor.ask(outfit.credentials["named"]) == "placed"
        assert daemon.running.end() == TOLD_TO_END


def test_a_file_that_could_not_be_used_is_tried_again(fleet: Fleet, outfit: Outfit) -> None:
    with guarded(fleet.hosts, outfit, "plain") as (daemon, visitor):
        file = outfit.directory / "clients.toml"
        file.chmod(0o644)
        del outfit.clients["right"]
        outfit.write()
        daemon.running.wait_for("chmod")
        assert visitor.ask(outfit.credentials["key"]) == "placed"
        # Its content and the time of that are the same, and yet it can be used now.
        file.chmod(0o600)
        daemon.running.wait_for("read again")
        assert visitor.ask(outfit.credentials["key"]) == "unauthenticated"
        assert daemon.running.end() == TOLD_TO_END
        assert sum("chmod" in line for line in daemon.running.lines) == 1


def test_a_unix_socket_is_for_the_daemons_user_and_group_alone(fleet: Fleet, outfit: Outfit) -> None:
    with guarded(fleet.hosts, outfit, "unix") as (daemon, visitor):
        assert visitor.ask(outfit.credentials["key"]) == "placed"
        assert (outfit.directory / "socket").stat().st_mode & 0o777 == 0o660
        daemon.running.end()
    assert not os.path.exists(outfit.directory / "socket")


def test_metrics_may_have_a_listener_of_their_own(fleet: Fleet, outfit: Outfit) -> None:
    port = free_port()
    environment = outfit.settings("tls, required", free_port())
    environment["LXD_MULTI_SCHEDULER_METRICS_ENDPOINT"] = f"tcp:{port}:interface=127.0.0.1"
    with run(TWISTD, clean_environment(LXD_MULTI_HOSTS=json.dumps(fleet.hosts), **environment)) as running:
        assert f"http://127.0.0.1:{port}" in running.wait_for("listens on")
        visitor = Visitor(outfit, "plain", port)
        told = {path: visitor.ask(Credential(), "GET", path) for path in ("/healthz", "/hosts", "/openapi.json")}
        assert told == {"/healthz": "answered", "/hosts": "not_found", "/openapi.json": "not_found"}
        assert visitor.ask(Credential()) == "not_found"
        connection = visitor.connect()
        connection.request("GET", "/metrics")
        assert b"lxdsched_hosts" in connection.getresponse().read()
        connection.close()
        assert running.end() == TOLD_TO_END


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_a_socket_that_systemd_has_opened_is_taken_over(fleet: Fleet, tmp_path: Path, family: int) -> None:
    with socket.socket(family) as listening:
        listening.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket"))
        listening.listen()
        domain = "INET" if family == socket.AF_INET else "UNIX"
        environment = clean_environment(
            LXD_MULTI_HOSTS=json.dumps(fleet.hosts), LXD_MULTI_SCHEDULER_ENDPOINT=f"systemd:domain={domain}:index=0"
        )
        # As systemd does it: the sockets begin at descriptor 3, and the process is named that they are for.
        start = f'exec 3<&{listening.fileno()}; export LISTEN_FDS=1 LISTEN_FDNAMES=http LISTEN_PID=$$; exec "$@"'
        command = ["/bin/bash", "-c", start, "bash", *TWISTD]
        with run(command, environment, descriptors=[listening.fileno()]) as running:
            running.wait_for("listens on")
            connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
            connection.sock = socket.socket(family)
            connection.sock.connect(listening.getsockname())
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"ok"}\n'
            connection.close()
            assert running.end() == TOLD_TO_END


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"ENDPOINT": "systemd:domain=INET:index=0"}, "cannot listen on systemd:domain=INET:index=0"),
        ({"ENDPOINT": "unix:/nowhere/at/all"}, "cannot listen on unix:/nowhere/at/all"),
        ({"INTERFACE": "192.0.2.77"}, "lxdsched: cannot listen on 192.0.2.77:8080: Cannot assign requested address"),
    ],
)
def test_where_it_cannot_listen_it_says_so(fleet: Fleet, settings: dict[str, str], fault: str) -> None:
    more = {f"LXD_MULTI_SCHEDULER_{name}": value for name, value in settings.items()}
    with run(TWISTD, clean_environment(LXD_MULTI_HOSTS=json.dumps(fleet.hosts), **more)) as running:
        assert "Traceback" not in running.wait_for(fault)
        assert running.process.wait(PATIENCE) == 1
        assert not any("Traceback" in line for line in running.lines)
