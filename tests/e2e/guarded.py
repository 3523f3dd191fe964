"""Daemons with access control on every kind of listener, and every kind of credential that a client may come with."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from lxdsched.access.keys import digest, new_key
from lxdsched.sandbox.certs import KeyPair, make_authority, make_certificate
from tests.e2e.daemon import PATIENCE, TWISTD, Daemon, clean_environment, free_port, run

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=800)
REFUSED = "refused"
"""What a client is told that gets no answer at all."""


def revocation_list(authority: KeyPair, *revoked: KeyPair, ends: datetime | None = None) -> bytes:
    """Make a revocation list in PEM."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(LONG_AGO)
        .next_update(ends or NOW + timedelta(days=30))
    )
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number).revocation_date(LONG_AGO)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA384()).public_bytes(Encoding.PEM)


@dataclass(frozen=True)
class Credential:
    """What a client comes with: a header, a certificate, or both."""

    headers: Mapping[str, str] = field(default_factory=dict)
    pair: KeyPair | None = None
    chain: bytes = b""


class Outfit:
    """A clients file, certificates and revocation lists in a directory, and the credentials that go with them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ours, others = make_authority("ours", now=LONG_AGO, below=1), make_authority("others", now=LONG_AGO)
        self.authority = ours
        self.kept, self.lost = (
            make_authority(name, now=LONG_AGO, issuer=ours)
            for name in ("kept", "lost")  # its key is in other hands
        )
        self.confined = make_authority("confined", now=LONG_AGO, issuer=ours, domain="team.example")
        self.server = make_certificate("localhost", now=NOW, san=["127.0.0.1"])
        self.server.write(directory, "server")
        keys = {name: new_key(f"{number:08x}") for number, name in enumerate(("right", "reads", "expired", "revoked"))}

        def issued(name: str, by: KeyPair | None = ours, **more: Any) -> KeyPair:
            return make_certificate(name, now=LONG_AGO, issuer=by, **{"client": True, **more})

        pairs = {
            "pinned": issued("pinned", None),
            "pinned, expired": issued("pinned", None, not_after=NOW - timedelta(days=1)),
            "pinned, not yet valid": issued("pinned", None, not_before=NOW + timedelta(days=1)),
            "pinned, wrong right": issued("pinned", None),
            "unknown": issued("schedules.example", None),
            "named": issued("schedules.example"),
            "named, expired": issued("schedules.example", not_after=NOW - timedelta(days=1)),
            "named, revoked": issued("schedules.example"),
            "named, by others": issued("schedules.example", others),
            "named, one below": issued("schedules.example", self.kept),
            "named, one below that was revoked": issued("schedules.example", self.lost),
            "named, one below that may not": issued("schedules.example", self.confined),
            "named, for servers": issued("schedules.example", client=False),
            "named, unknown name": issued("nobody.example"),
            "named, wrong right": issued("reads.example"),
        }
        self.pairs = pairs
        self.credentials = {
            "none": Credential(),
            "key": self.key(keys["right"]),
            "key as password": Credential({"Authorization": "Basic " + _basic("right", keys["right"])}),
            "key, wrong": self.key(new_key("00000000")),
            "key, unknown": self.key(new_key("ffffffff")),
            "key, expired": self.key(keys["expired"]),
            "key, revoked": self.key(keys["revoked"]),
            "key, wrong right": self.key(keys["reads"]),
            **{name: Credential(pair=pair) for name, pair in pairs.items()},
            "named, one below": Credential(pair=pairs["named, one below"], chain=self.kept.cert_pem),
            "named, one below that was revoked": Credential(
                pair=pairs["named, one below that was revoked"], chain=self.lost.cert_pem
            ),
            "named, one below that may not": Credential(
                pair=pairs["named, one below that may not"], chain=self.confined.cert_pem
            ),
            "wrong key, pinned": Credential(self.key(new_key("00000000")).headers, pairs["pinned"]),
        }
        (directory / "ca.crt").write_bytes(ours.cert_pem)
        self.revoke(pairs["named, revoked"])
        self.clients = {
            "right": {"rights": ["schedule"], "keys": [_key(keys["right"])]},
            "expired": {"rights": ["admin"], "keys": [_key(keys["expired"], NOW - timedelta(days=1))]},
            "reads": {
                "rights": ["read"],
                "keys": [_key(keys["reads"])],
                "names": ["reads.example"],
                "fingerprints": [pairs["pinned, wrong right"].fingerprint],
            },
            "certain": {
                "rights": ["schedule"],
                "names": ["schedules.example"],
                "fingerprints": [
                    pairs[name].fingerprint for name in ("pinned", "pinned, expired", "pinned, not yet valid")
                ],
            },
        }
        self.write()

    @staticmethod
    def key(key: str) -> Credential:
        """Return the credential that a key is."""
        return Credential({"Authorization": f"Bearer {key}"})

    def revoke(self, *pairs: KeyPair) -> None:
        """Write a revocation list of these certificates."""
        lists = [
            revocation_list(self.authority, self.lost, *pairs),
            revocation_list(self.kept),
            revocation_list(self.lost),
            revocation_list(self.confined),
        ]
        (self.directory / "ca.crl").write_bytes(b"".join(lists))

    def admit(self, name: str, *rights: str) -> Credential:
        """Write a client with these rights into the clients file; return its key."""
        key = new_key(f"{0xA0 + len(self.clients):08x}")
        self.clients[name] = {"rights": list(rights), "keys": [_key(key)]}
        self.write()
        return self.key(key)

    def write(self) -> None:
        """Write the clients file."""
        file = self.directory / "clients.toml"
        text = "".join(
            f"[{name}]\n" + "".join(_line(*each) for each in it.items()) for name, it in self.clients.items()
        )
        file.touch(mode=0o600)
        file.write_text(text)

    def settings(self, listener: str, port: int) -> dict[str, str]:
        """Return the environment that has a daemon listen in some way."""
        prefix, directory = "LXD_MULTI_SCHEDULER_", self.directory
        settings = {f"{prefix}CLIENTS_FILE": str(directory / "clients.toml")}
        if listener == "unix":
            settings[f"{prefix}ENDPOINT"] = f"unix:{directory / 'socket'}"
        else:
            settings[f"{prefix}PORT"] = str(port)
        if listener.startswith("tls"):
            settings |= {
                f"{prefix}TLS_CERT": str(directory / "server.crt"),
                f"{prefix}TLS_KEY": str(directory / "server.key"),
            }
        if listener == "tls":
            settings |= {f"{prefix}TLS_CLIENT_AUTH": "none"}
        if listener in ("tls, optional", "tls, required"):
            settings |= {
                f"{prefix}TLS_CLIENT_CA": str(directory / "ca.crt"),
                f"{prefix}TLS_CLIENT_CRL": str(directory / "ca.crl"),
                f"{prefix}TLS_CLIENT_AUTH": listener.partition(", ")[2],
            }
        return settings


def _basic(user: str, key: str) -> str:
    import base64

    return base64.b64encode(f"{user}:{key}".encode()).decode()


def _key(key: str, expires: datetime | None = None) -> str:
    ends = "" if expires is None else f", expires = {expires:%Y-%m-%dT%H:%M:%SZ}"
    return f'{{ id = "{key.split("_")[1]}", sha256 = "{digest(key).hex()}", created = 2026-01-01T00:00:00Z{ends} }}'


def _line(name: str, values: Sequence[str]) -> str:
    shown = values if name == "keys" else [json.dumps(value) for value in values]
    return f"{name} = [{', '.join(shown)}]\n"


class Visitor:
    """A client of one listener."""

    def __init__(self, outfit: Outfit, listener: str, port: int) -> None:
        self._outfit = outfit
        self._listener = listener
        self._port = port

    def connect(self, pair: KeyPair | None = None, chain: bytes = b"") -> http.client.HTTPConnection:
        """Make a connection, which is made when it is first used."""
        if self._listener == "unix":
            connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.connect(str(self._outfit.directory / "socket"))
            return connection
        if not self._listener.startswith("tls"):
            return http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        context = ssl.create_default_context(cadata=self._outfit.server.cert_pem.decode())
        if pair is not None:
            certificate, key = pair.write(self._outfit.directory, "visitor")
            certificate.write_bytes(pair.cert_pem + chain)
            context.load_cert_chain(certificate, key)
        return http.client.HTTPSConnection("127.0.0.1", self._port, timeout=PATIENCE, context=context)

    def ask(self, credential: Credential, method: str = "POST", path: str = "/schedule") -> str:
        """Ask for a place; return the host's key in the answer, or the code of the error, or REFUSED."""
        connection = self.connect(credential.pair, credential.chain)
        try:
            return self.ask_on(connection, credential.headers, method, path)
        finally:
            connection.close()

    @staticmethod
    def ask_on(
        connection: http.client.HTTPConnection,
        headers: Mapping[str, str],
        method: str = "POST",
        path: str = "/schedule",
    ) -> str:
        """Ask on a connection."""
        body = '{"cpu": 1, "memory": 1048576, "dry_run": true}' if method == "POST" else None
        try:
            connection.request(method, path, body, dict(headers))
            answer = json.loads(connection.getresponse().read())
        except (ssl.SSLError, OSError, http.client.HTTPException):
            return REFUSED
        return str(answer.get("code") or ("placed" if "host" in answer else "answered"))


@contextmanager
def guarded(hosts: object, outfit: Outfit, listener: str, **settings: str) -> Iterator[tuple[Daemon, Visitor]]:
    """Run a daemon that listens in some way, with access control; `settings` are more of its environment."""
    port = free_port()
    environment = clean_environment(LXD_MULTI_HOSTS=json.dumps(hosts), **outfit.settings(listener, port), **settings)
    with run(TWISTD, environment) as running:
        running.wait_for("listens on")
        yield Daemon(running, port), Visitor(outfit, listener, port)
