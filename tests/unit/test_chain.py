"""What the other side of a connection is shown of us."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from cryptography import x509
from OpenSSL import SSL

from lxdsched.config.pairs import read_pair
from lxdsched.sandbox.certs import KeyPair, make_authority, make_certificate
from lxdsched.tls import CertificateRefused, FirstUse, HostPolicy, fingerprint

NOW = datetime.now(UTC)


def shown(policy: HostPolicy, server: KeyPair) -> list[str]:
    """Shake hands in memory; return the certificates that the server was shown, by fingerprint."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(server.certificate)
    context.use_privatekey(server.key)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    host, ours = SSL.Connection(context, None), policy.clientConnectionForTLS(cast(Any, None))
    host.set_accept_state()
    ours.set_connect_state()
    for _ in range(4):
        for one, other in ((ours, host), (host, ours)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    leaf, issuers = host.get_peer_certificate(as_cryptography=True), host.get_peer_cert_chain(as_cryptography=True)
    assert leaf is not None
    return [fingerprint(each) for each in (leaf, *(issuers or ()))]  # on this side OpenSSL keeps them apart


def test_those_that_issued_our_certificate_are_shown_with_it() -> None:
    ca, server = make_authority("ca", now=NOW), make_certificate("localhost", now=NOW)
    pair = make_certificate("client", now=NOW, issuer=ca, client=True)
    identity = read_pair("c.crt", pair.cert_pem + ca.cert_pem, "c.key", pair.key_pem)
    assert shown(HostPolicy(identity, FirstUse(), "localhost"), server) == [pair.fingerprint, ca.fingerprint]


class Stumbling(FirstUse):
    """A trust that comes upon what cannot be read of a certificate."""

    def check(self, certificate: x509.Certificate, name: str, problem: str | None) -> None:
        raise x509.DuplicateExtension("twice", x509.ObjectIdentifier("2.5.29.17"))


def test_a_certificate_that_cannot_be_read_is_refused_in_the_handshake() -> None:
    server, pair = make_certificate("localhost", now=NOW), make_certificate("client", now=NOW, client=True)
    identity = read_pair("c.crt", pair.cert_pem, "c.key", pair.key_pem)
    with pytest.raises(CertificateRefused, match="its certificate cannot be read"):
        shown(HostPolicy(identity, Stumbling(), "localhost"), server)
