"""What is made of the certificates that clients show."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from lxdsched.access import Clients, Stranger
from lxdsched.listener import tls
from lxdsched.sandbox.certs import make_certificate

NOW = datetime.now(UTC)
VERSION_3, VERSION_4 = bytes.fromhex("a003020102"), bytes.fromhex("a003020103")


def test_a_certificate_is_read_with_what_speaks_against_it() -> None:
    pair = make_certificate("ci.example", now=NOW, client=True)
    shown = tls._read(crypto.X509.from_cryptography(pair.certificate), "it is self-signed")
    assert (shown.fingerprint, shown.names) == (pair.fingerprint, ("ci.example",))
    assert shown.problem == "it is self-signed"


def test_a_certificate_that_only_openssl_can_read_is_nobodys() -> None:
    der = make_certificate("ci.example", now=NOW, client=True).certificate.public_bytes(Encoding.DER)
    odd = crypto.load_certificate(crypto.FILETYPE_ASN1, der.replace(VERSION_3, VERSION_4, 1))
    shown = tls._read(odd, None)
    assert (shown.names, shown.not_after) == ((), datetime.fromtimestamp(0, UTC))
    assert "cannot be read" in str(shown.problem)
    try:
        Clients().by_certificate(shown, NOW)
    except Stranger as why:
        assert "cannot be read" in str(why)
