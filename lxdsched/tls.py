"""Whom we trust on the other side of a connection, and as whom we come: towards the LXD hosts, and towards Redis.

LXD's server certificates are self-signed leaves whose names rarely match, so they are pinned, as LXD's own clients do
it. The check runs inside the handshake, before our client certificate is sent. Where a CA is configured, the chain
must be valid *and* a subjectAltName must match: service-identity as Twisted calls it would let a certificate without
any subjectAltName pass, so the check is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from lxdsched.chains import too_much

_FINGERPRINT = re.compile(r"[0-9a-f]{64}\Z")

OPENSSL_REASONS = {
    3: "there is no revocation list of its issuer",
    7: "its signature is wrong",
    9: "it is not valid yet",
    10: "it has expired",
    11: "the revocation list is not valid yet",
    12: "the revocation list has expired",
    18: "it is self-signed and not the configured CA",
    19: "its chain ends in a CA that is not the configured one",
    20: "it was not issued by the configured CA",
    21: "it was not issued by the configured CA",
    23: "it was revoked",
    24: "one of its issuers is not a CA",
    26: "it is not meant for servers",
}
"""OpenSSL's X509_V_ERR_* numbers (x509_vfy.h), said for a person."""


class CertificateRefused(SSL.Error):  # an SSL.Error, so that the TLS layer hands it on as the reason
    """The certificate that was shown is not one we trust. The message says why, and shows its fingerprint."""

    def __init__(self, message: str) -> None:
        # The form of OpenSSL's error queue, which the TLS layer looks into.
        super().__init__([("lxdsched", "", message)])
        self._message = message

    def __str__(self) -> str:
        return self._message


def describe(error: SSL.Error | crypto.Error) -> str:
    """Say what OpenSSL has to say, for a person."""
    if isinstance(error, CertificateRefused) or not (error.args and isinstance(error.args[0], list)):
        return str(error)
    return ", ".join(str(entry[-1]) for entry in error.args[0]) or type(error).__name__


class IdentityError(ValueError):
    """A certificate, key or fingerprint of the configuration that cannot be used; the message says why."""


@dataclass(frozen=True)
class Identity:
    """A certificate of ours with its key. `fingerprint` is the SHA-256 of the certificate's DER, in hex.

    `chain` are the authorities between it and one that the other side knows, the one that issued it first. Two with the
    same certificates are equal: there is one key to a certificate.
    """

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes = field(compare=False)
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The name under which LXD's trust store knows us."""
        return fingerprint(self.certificate)

    @property
    def expires(self) -> datetime:
        """When the certificate ends."""
        return self.certificate.not_valid_after_utc


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate's DER in hex, as `lxc` shows it."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def read_fingerprint(text: str) -> str:
    """Normalise a fingerprint as people copy it (upper case, colons). IdentityError when it is not a SHA-256."""
    digits = text.replace(":", "").strip().lower()
    if not _FINGERPRINT.match(digits):
        raise IdentityError("is not a SHA-256 fingerprint: 64 hexadecimal digits, colons allowed")
    return digits


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """Read the certificates of a PEM file. IdentityError when there is none."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion) as error:
        raise IdentityError(f"holds no PEM certificate ({error})") from None


class Trust(Protocol):
    """Decides on the certificate that a host presents."""

    @property
    def chain(self) -> bool:
        """Whether OpenSSL's opinion of the issuers counts."""

    def prepare(self, context: SSL.Context) -> None:
        """Add what OpenSSL needs for its own verification."""

    def check(self, certificate: x509.Certificate, name: str, problem: str | None) -> None:
        """Raise CertificateRefused unless this leaf certificate of the host `name` is trusted.

        `problem` is what OpenSSL has against it, None when nothing.
        """

    def proven(self, certificate: x509.Certificate) -> None:
        """Take note that the handshake is over: the host has the key of this certificate."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """Trust in exactly these certificates, by SHA-256 fingerprint; names, dates and issuers do not matter."""

    fingerprints: frozenset[str]
    chain = False

    def prepare(self, context: SSL.Context) -> None:
        """Nothing is needed: the pin is the whole check."""

    def check(self, certificate: x509.Certificate, name: str, problem: str | None) -> None:  # noqa: ARG002
        """Refuse every certificate but the pinned ones."""
        shown = fingerprint(certificate)
        if shown not in self.fingerprints:
            pinned = " or ".join(sorted(self.fingerprints))
            raise CertificateRefused(f"its certificate is not the pinned one: it shows {shown}, pinned is {pinned}")

    def proven(self, certificate: x509.Certificate) -> None:
        """Nothing is remembered."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Trust in what these CAs issued, if a subjectAltName matches the host's name or address."""

    certificates: tuple[x509.Certificate, ...]
    chain = True

    def prepare(self, context: SSL.Context) -> None:
        """Put the CAs into OpenSSL's store."""
        store = context.get_cert_store()
        if store is None:
            raise IdentityError("OpenSSL has no certificate store")
        for certificate in self.certificates:
            store.add_cert(crypto.X509.from_cryptography(certificate))

    def check(self, certificate: x509.Certificate, name: str, problem: str | None) -> None:
        """Refuse a chain that is not valid, and a leaf that does not name the host."""
        shown = fingerprint(certificate)
        if problem is not None:
            raise CertificateRefused(f"its certificate {shown} is refused: {problem}")
        try:
            wanted: DNS_ID | IPAddress_ID
            try:
                ip_address(name)
            except ValueError:
                wanted = DNS_ID(name)
            else:
                wanted = IPAddress_ID(name)
            if not (patterns := extract_patterns(certificate)):
                raise CertificateRefused(f"its certificate {shown} is refused: it has no subjectAltName")
            verify_service_identity(patterns, obligatory_ids=[wanted], optional_ids=[])
        except CertificateError as error:
            raise CertificateRefused(f"its certificate {shown} is refused: {error}") from None
        except VerificationError:
            raise CertificateRefused(f"its certificate {shown} is refused: it is not for {name}") from None

    def proven(self, certificate: x509.Certificate) -> None:
        """Nothing is remembered."""


@dataclass(frozen=True, slots=True)
class SystemAuthority(Authority):
    """Trust in what the machine's own CAs issued, if a subjectAltName matches the name or address."""

    certificates: tuple[x509.Certificate, ...] = ()

    def prepare(self, context: SSL.Context) -> None:
        """Let OpenSSL look where the system has its CAs."""
        context.set_default_verify_paths()


class FirstUse:
    """Trust in the first certificate that a host proves to own, and from then on in that one alone.

    `remember` is told the fingerprint once, so that a person can pin it.
    """

    chain = False

    def __init__(self, remember: Callable[[str], None] = lambda _fingerprint: None) -> None:
        self._remember = remember
        self._known: str | None = None

    def prepare(self, context: SSL.Context) -> None:
        """Nothing is needed: OpenSSL's opinion does not matter."""

    def check(self, certificate: x509.Certificate, name: str, problem: str | None) -> None:  # noqa: ARG002
        """Refuse a certificate that is not the one remembered."""
        shown = fingerprint(certificate)
        if self._known not in {None, shown}:
            raise CertificateRefused(
                f"its certificate has changed: it shows {shown}, first seen was {self._known}; "
                "pin the new fingerprint if the change was meant"
            )

    def proven(self, certificate: x509.Certificate) -> None:
        """Remember the first certificate."""
        if self._known is None:
            self._known = fingerprint(certificate)
            self._remember(self._known)


@implementer(IPolicyForHTTPS, IOpenSSLClientConnectionCreator)
class HostPolicy:
    """The TLS policy towards one host: our identity, where it wants one, and its trust. Built once per host.

    LXD has TLS 1.3; with `older`, TLS 1.2 will do.
    """

    def __init__(self, identity: Identity | None, trust: Trust, name: str, *, older: bool = False) -> None:
        self._trust = trust
        self._name = name
        options = CertificateOptions(
            privateKey=identity and identity.key,  # type: ignore[arg-type]  # it takes cryptography's own, its hints are older
            certificate=identity and identity.certificate,  # type: ignore[arg-type]
            extraCertChain=list(identity.chain) if identity and identity.chain else None,  # type: ignore[arg-type]
            raiseMinimumTo=TLSVersion.TLSv1_2 if older else TLSVersion.TLSv1_3,
        )
        self._context = options.getContext()
        trust.prepare(self._context)
        self._context.set_verify(SSL.VERIFY_PEER, self._verify)
        self._context.set_info_callback(self._watch)

    def creatorForNetloc(self, hostname: bytes, port: int) -> HostPolicy:  # noqa: ARG002, N802  # Twisted's name
        """Return the one policy there is: it belongs to one host."""
        return self

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N802, N803
        """Make a connection of this policy's context."""
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        try:
            ip_address(self._name)
        except ValueError:
            connection.set_tlsext_host_name(self._name.encode("idna"))  # names alone belong into SNI
        return connection

    def _verify(self, _connection: SSL.Connection, shown: crypto.X509, error: int, depth: int, ok: int) -> bool:
        # OpenSSL calls once for every problem, then for each certificate from the root down to the leaf (depth 0).
        problem = None if ok else OPENSSL_REASONS.get(error, f"OpenSSL's verification error {error}")
        if depth and problem and self._trust.chain:
            raise CertificateRefused(f"a certificate of its chain is refused, {depth} above its own: {problem}")
        if depth and not self._trust.chain and (why := too_much(shown, depth)):
            raise CertificateRefused(why)
        if depth == 0:
            self._check(shown, problem)
        return True

    def _check(self, shown: crypto.X509, problem: str | None) -> x509.Certificate:
        """Have the trust decide on a certificate, which anybody may have made: one that cannot be read is refused."""
        try:
            certificate = shown.to_cryptography()
            self._trust.check(certificate, self._name, problem)
        except CertificateRefused:
            raise
        except Exception as error:
            raise CertificateRefused(f"its certificate cannot be read ({error})") from None
        return certificate

    def _watch(self, connection: SSL.Connection, where: int, _code: int) -> None:
        if where & SSL.SSL_CB_HANDSHAKE_DONE:
            shown = connection.get_peer_certificate()
            try:
                if shown is None:
                    raise CertificateRefused("it shows no certificate")
                # Once more: between two handshakes at the same time, the other may have been the first use.
                self._trust.proven(self._check(shown, None))
            except CertificateRefused:
                connection.get_app_data().failVerification(Failure())
