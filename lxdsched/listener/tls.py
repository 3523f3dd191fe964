"""Our end of TLS towards clients: the certificate that we show, and what we make of theirs.

A client's certificate is asked for and not insisted on, as LXD does it: who shows none, or one that is not known, is
told so in an answer that people can read, and health can be asked for without any. With `Ask.REQUIRED` the handshake
itself fails instead, and nobody who is not known gets any further.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol, cast

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from lxdsched.access import Shown, certificate_names
from lxdsched.chains import MOST_ABOVE, too_much
from lxdsched.tls import OPENSSL_REASONS, CertificateRefused, Identity

_NEVER = datetime.fromtimestamp(0, UTC)
_NO_CLIENT = 26  # X509_V_ERR_INVALID_PURPOSE


class Ask(StrEnum):
    """Whether clients are asked for a certificate."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What a listener with TLS needs.

    Clients' certificates by name are those that `authorities` issued and `revocations` do not list; where there are
    revocation lists, each issuer needs one that is current.
    """

    identity: Identity
    authorities: tuple[x509.Certificate, ...] = ()
    revocations: tuple[x509.CertificateRevocationList, ...] = ()
    ask: Ask = Ask.NONE


class Peer(Protocol):
    """The protocol at the end of a connection. `problem` is the first thing that speaks against the client's chain."""

    problem: str | None


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """Makes the server's side of connections. `known` tells whether a certificate is that of a client of ours."""

    def __init__(self, material: TlsMaterial, known: Callable[[Shown], bool]) -> None:
        self._known = known
        self._context = self._contextual(material)
        self._material = material

    def take(self, material: TlsMaterial) -> bool:
        """Use something else for the connections from now on. SSL.Error or crypto.Error when OpenSSL does not take it.

        Returns whether clients' certificates are looked at in another way, so that older connections should be renewed.
        """
        self._context = self._contextual(material)
        before, self._material = self._material, material
        return _about_clients(before) != _about_clients(material)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002, N802, N803
        """Make a connection of the context of now."""
        return SSL.Connection(self._context, None)

    def _contextual(self, material: TlsMaterial) -> SSL.Context:
        options = CertificateOptions(
            privateKey=material.identity.key,  # type: ignore[arg-type]  # it takes cryptography's own, its hints are older
            certificate=material.identity.certificate,  # type: ignore[arg-type]
            extraCertChain=list(material.identity.chain),  # type: ignore[arg-type]
            raiseMinimumTo=TLSVersion.TLSv1_2,
            # A resumed session would bring a certificate that was looked at long ago.
            enableSessions=False,
            enableSessionTickets=False,
        )
        context = options.getContext()
        if material.ask is Ask.NONE:
            return context
        store = context.get_cert_store()
        if store is not None:
            for authority in material.authorities:
                store.add_cert(crypto.X509.from_cryptography(authority))
            for revocation in material.revocations:
                store.add_crl(revocation)
            if material.revocations:
                # Of the authorities in a chain too, not of the client's own certificate alone.
                store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
        context.set_verify_depth(MOST_ABOVE)
        ours = {crypto.X509.from_cryptography(authority).digest("sha256") for authority in material.authorities}
        required = material.ask is Ask.REQUIRED
        mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0)

        def verify(connection: SSL.Connection, shown: crypto.X509, error: int, depth: int, ok: int) -> bool:
            if shown.digest("sha256") not in ours and (why := too_much(shown, depth)):
                raise CertificateRefused(why)
            peer = _peer(connection.get_app_data())
            if not ok and peer.problem is None:
                peer.problem = _problem(error, depth)
            # Soon, so that the client is told within the handshake. OpenSSL may still find something.
            if required and ok and depth == 0:
                self._insist(_read(shown, peer.problem))
            return True

        context.set_verify(mode, verify)
        if required:
            context.set_info_callback(self._watch)
        return context

    def _watch(self, connection: SSL.Connection, where: int, _code: int) -> None:
        """Insist once more when OpenSSL has said all: it looks at names last, after the client's own certificate."""
        if where & SSL.SSL_CB_HANDSHAKE_DONE:
            protocol, shown = connection.get_app_data(), connection.get_peer_certificate()
            try:
                if shown is None:
                    raise CertificateRefused("it shows no certificate")
                self._insist(_read(shown, _peer(protocol).problem))
            except CertificateRefused:
                protocol.failVerification(Failure())

    def _insist(self, shown: Shown) -> None:
        if not self._known(shown):
            problem = f": {shown.problem}" if shown.problem else ""
            raise CertificateRefused(f"its certificate {shown.fingerprint} is not that of a known client{problem}")


def _about_clients(material: TlsMaterial) -> object:
    return material.authorities, material.revocations, material.ask


def shown_certificate(transport: object) -> Shown | None:
    """Return what the other side of a connection has shown and proven to own; None for nothing, or without TLS."""
    if not isinstance(transport, TLSMemoryBIOProtocol):
        return None
    connection: SSL.Connection = transport.getHandle()
    certificate = connection.get_peer_certificate()
    return None if certificate is None else _read(certificate, _peer(transport).problem)


def _peer(protocol: TLSMemoryBIOProtocol) -> Peer:
    return cast(Peer, protocol.wrappedProtocol)


def _read(certificate: crypto.X509, problem: str | None) -> Shown:
    """Read a certificate, which anybody may have made: what cannot be read of it is not valid."""
    shown = certificate.digest("sha256").replace(b":", b"").decode().lower()
    try:
        read = certificate.to_cryptography()
        return Shown(shown, certificate_names(read), read.not_valid_before_utc, read.not_valid_after_utc, problem)
    except (ValueError, x509.InvalidVersion) as error:
        return Shown(shown, (), _NEVER, _NEVER, problem or f"it cannot be read ({error})")


def _problem(error: int, depth: int) -> str:
    what = "it is not meant for clients" if error == _NO_CLIENT else OPENSSL_REASONS.get(error)
    what = what or f"OpenSSL's verification error {error}"
    return f"{depth} above it in its chain: {what}" if depth else what
