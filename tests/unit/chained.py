"""Chains of certificates as nobody has them, and handshakes in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from lxdsched.sandbox.certs import KeyPair

NOW = datetime.now(UTC)


def certificates(
    above: int, names: int, constraints: int, *, damaged: bool = False
) -> tuple[KeyPair, list[x509.Certificate]]:
    """Make a client's certificate with so many names, and above it others with so many constraints on names."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(above + 1)]
    made: list[x509.Certificate] = []
    for number, key in enumerate(keys):
        subject, issuer = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"c{each}")])
            for each in (number, min(number + 1, above))
        )
        builder = (
            x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=9))
            .add_extension(x509.BasicConstraints(number > 0, None), critical=True)
        )
        extension: x509.ExtensionType | None = None
        if number == 0 and names:
            extension = x509.SubjectAlternativeName([x509.DNSName(f"a{each}") for each in range(names)])
        elif number and constraints:
            extension = x509.NameConstraints(None, [x509.DNSName(f"b{each}") for each in range(constraints)])
        if extension is not None and damaged:
            extension = x509.UnrecognizedExtension(extension.oid, extension.public_bytes()[:-1] + b"\xff")
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
        made.append(builder.sign(keys[min(number + 1, above)], hashes.SHA256()))
    return KeyPair(made[0], keys[0]), made[1:]


def showing(method: int, pair: KeyPair | None, above: Sequence[x509.Certificate]) -> SSL.Context:
    """Make the context of a side that shows a certificate, if any, and those above it."""
    context = SSL.Context(method)
    if pair is not None:
        context.use_certificate(pair.certificate)
        context.use_privatekey(pair.key)
    for each in above:
        context.add_extra_chain_cert(each)
    return context


def step(one: SSL.Connection, other: SSL.Connection) -> str:
    """Go on with one side, and pass on what it says; return what it raised."""
    raised = ""
    try:
        one.do_handshake()
    except SSL.WantReadError:
        pass
    except Exception as error:
        raised = str(error)
    with suppress(SSL.WantReadError):
        other.bio_write(one.bio_read(2**17))
    return raised
