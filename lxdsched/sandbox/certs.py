"""Certificates like the ones LXD makes for itself, and the odd ones that tests of trust need.

LXD's own certificate is a self-signed leaf: ECDSA on P-384, ten years long, named `root@HOST`, with the host's name
and its loopback addresses as alternative names. Clients make theirs in the same way.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ORGANIZATION = "linuxcontainers.org"
LIFETIME = timedelta(days=3650)


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key. Two pairs are equal when both parts are the same objects' values."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert_pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key in PEM, unencrypted (PKCS #8)."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate's DER in lower-case hexadecimal, which is how LXD names certificates."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def write(self, directory: Path, stem: str) -> tuple[Path, Path]:
        """Write `STEM.crt` and `STEM.key` (readable by the owner alone) and return both paths."""
        cert_path, key_path = directory / f"{stem}.crt", directory / f"{stem}.key"
        cert_path.write_bytes(self.cert_pem)
        # The mode is given at creation: a key that is world-readable for a moment was world-readable.
        with os.fdopen(os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(self.key_pem)
        return cert_path, key_path


def make_certificate(
    name: str,
    *,
    now: datetime,
    san: Sequence[str] | None = (),
    issuer: KeyPair | None = None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    client: bool = False,
) -> KeyPair:
    """Make a leaf certificate for `root@NAME`, self-signed unless an `issuer` is given.

    The alternative names are `name` and those of `san` (host names or IP addresses); `san=None` leaves the whole
    extension out. `not_before` defaults to `now` and `not_after` to ten years after it; `client` gives it a client's
    extended key usage instead of a server's.
    """
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    start = now if not_before is None else not_before
    end = start + LIFETIME if not_after is None else not_after
    key = ec.generate_private_key(ec.SECP384R1())
    builder = (
        _builder(f"root@{name}", key, start, end, issuer)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if san is not None:
        names = [_general_name(text) for text in (name, *san)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _sign(builder, key, issuer)


def make_authority(
    name: str, *, now: datetime, issuer: KeyPair | None = None, below: int = 0, domain: str | None = None
) -> KeyPair:
    """Make a certificate authority, for `make_certificate(issuer=...)`, as LXD's PKI mode has one.

    It is self-signed unless it has an issuer, and there may be as many authorities `below` it, one below the other. One
    with a domain is confined to DNS names in it.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    builder = (
        _builder(name, key, now, now + LIFETIME, issuer)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=below), critical=True)
    )
    if domain is not None:
        confined = x509.NameConstraints(permitted_subtrees=[x509.DNSName(domain)], excluded_subtrees=None)
        builder = builder.add_extension(confined, critical=True)
    return _sign(builder, key, issuer)


def _builder(
    common_name: str, key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime, issuer: KeyPair | None
) -> x509.CertificateBuilder:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, issuer: KeyPair | None) -> KeyPair:
    return KeyPair(builder.sign(issuer.key if issuer else key, hashes.SHA384()), key)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)
