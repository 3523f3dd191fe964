"""Who the clients are, and our end of TLS towards them: what is in files that may change while the daemon runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from OpenSSL import SSL, crypto

from lxdsched.access import Clients, ClientsError, read_clients
from lxdsched.certificates import OurCertificate, Register
from lxdsched.config.files import Files
from lxdsched.config.pairs import load_pair, read_bundle
from lxdsched.config.values import Fault
from lxdsched.listener.tls import Ask, ServerTls, TlsMaterial
from lxdsched.tls import describe

_REVOCATIONS = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)

T = TypeVar("T")
Named = tuple[str, str]
"""Where a file is set, for the faults, and its name."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What was read. Without `clients` everybody may do everything, without `tls` there is none."""

    clients: Clients | None = None
    tls: TlsMaterial | None = None
    certificates: tuple[OurCertificate, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of the listener's TLS. Without `ask` the clients decide whether they are asked for certificates."""

    certificate: Named
    key: Named
    authorities: Named | None = None
    revocations: Named | None = None
    ask: Ask | None = None


@dataclass(frozen=True, slots=True)
class GuardFiles:
    """The files, which `load` reads, at the start and again later. Without `tls` there is none."""

    clients: Named | None = None
    tls: TlsFiles | None = None

    def load(self, files: Files, faults: list[str]) -> Guard:
        """Read them all. What is missing after a fault was added is not to be used."""
        register = Register()
        clients = None if self.clients is None else _clients(self.clients, files, faults)
        tls = None if self.tls is None else _tls(self.tls, files, clients, faults, register)
        return Guard(clients, tls, register.all(), tuple(_in_vain(clients, tls)))

    def paths(self, files: Files) -> tuple[Path, ...]:
        """Say where they are."""
        named = [self.clients]
        if self.tls is not None:
            named += [self.tls.certificate, self.tls.key, self.tls.authorities, self.tls.revocations]
        return tuple(files.path(each[1]) for each in named if each is not None)


def _in_vain(clients: Clients | None, tls: TlsMaterial | None) -> Iterator[str]:
    """Warn of clients whose certificates nobody will ever see."""
    for entry in () if clients is None else clients.entries:
        seen = tls is not None and tls.ask is not Ask.NONE
        if (entry.fingerprints or entry.names) and not seen:
            yield f"client {entry.client.name} is known by certificates, and the listener asks for none"
        elif entry.names and tls is not None and not tls.authorities:
            yield f"client {entry.client.name} is known by names that no tls_client_ca can have put into a certificate"


def _clients(named: Named, files: Files, faults: list[str]) -> Clients | None:
    content = _content(named, partial(files.read_secret, named=True), faults)
    try:
        return None if content is None else read_clients(content, named[1])
    except ClientsError as error:
        faults += error.faults
        return None


def _tls(
    named: TlsFiles, files: Files, clients: Clients | None, faults: list[str], register: Register
) -> TlsMaterial | None:
    identity = load_pair(files, faults, certificate=named.certificate, key=named.key)
    authorities = _parsed(named.authorities, files, faults, read_bundle)
    revocations = _parsed(named.revocations, files, faults, _revocations)
    if identity is None:
        return None
    register.note("tls_cert", named.certificate[1], [identity.certificate, *identity.chain])
    if named.authorities is not None and authorities:
        register.note("tls_client_ca", named.authorities[1], authorities)
    ask = named.ask or (Ask.OPTIONAL if clients is not None and clients.take_certificates else Ask.NONE)
    material = TlsMaterial(identity, tuple(authorities), tuple(revocations), ask)
    try:
        ServerTls(material, lambda _shown: False)
    except (SSL.Error, crypto.Error) as error:
        faults.append(f"{named.certificate[0]}: OpenSSL does not take the listener's certificates: {describe(error)}")
        return None
    return material


def _parsed(named: Named | None, files: Files, faults: list[str], parse: Callable[[str, bytes], list[T]]) -> list[T]:
    content = None if named is None else _content(named, files.read_trusted, faults)
    if named is None or content is None:
        return []
    try:
        return parse(named[1], content)
    except Fault as fault:
        faults.append(f"{named[0]}: {fault}")
        return []


def _content(named: Named, read: Callable[[str], bytes], faults: list[str]) -> bytes | None:
    try:
        return read(named[1])
    except Fault as fault:
        faults.append(f"{named[0]}: {fault}")
        return None


def _revocations(name: str, content: bytes) -> list[x509.CertificateRevocationList]:
    found = _REVOCATIONS.findall(content)
    if not found:
        raise Fault(f"{name}: holds no revocation list in PEM")
    try:
        return [x509.load_pem_x509_crl(each) for each in found]
    except ValueError as error:
        raise Fault(f"{name}: holds what is no revocation list ({error})") from None
