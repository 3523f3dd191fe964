"""Certificates and keys as they are in files, and what people mistake for them, said with what to do about it."""

from __future__ import annotations

import shlex
from itertools import pairwise
from typing import cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    PrivateKeyTypes,
    PublicKeyTypes,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from OpenSSL import SSL

from lxdsched.config.files import Files
from lxdsched.config.values import Fault
from lxdsched.tls import FirstUse, HostPolicy, Identity, IdentityError, describe, read_certificates

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"


class KeyFault(Fault):
    """What is wrong with the file of a key."""


def load_pair(
    files: Files, faults: list[str], *, certificate: tuple[str, str], key: tuple[str, str]
) -> Identity | None:
    """Read a certificate and its key from their files; add to `faults` and return None when they cannot be used.

    Each is given as where it is set, for the faults, and the name of its file.
    """
    contents: list[bytes] = []
    for source, name in (certificate, key):
        try:
            contents.append(files.read(name))
        except Fault as fault:
            faults.append(f"{source}: {fault}")
    if len(contents) < 2:  # noqa: PLR2004
        return None
    identity = None
    try:
        identity = read_pair(certificate[1], contents[0], key[1], contents[1])
    except Fault as fault:
        faults.append(f"{(key if isinstance(fault, KeyFault) else certificate)[0]}: {fault}")
    if identity is None and _CERTIFICATE in contents[1] and _KEY not in contents[1]:
        return None  # the files are swapped: who may read a certificate does not matter
    try:
        files.read_secret(key[1])
    except Fault as fault:
        faults.append(f"{key[0]}: {fault}")
        return None
    return identity


def read_pair(certificate_path: str, certificate: bytes, key_path: str, key: bytes) -> Identity:
    """Read a certificate, with those that issued it behind it where the file has them, and its key; both in PEM.

    Fault when they cannot be used, with the file and what to do. Its dates do not matter here: an Identity says when
    its certificate ends, and `lxdsched.certificates` tells people in time.
    """
    chain = read_bundle(certificate_path, certificate)
    private = _read_key(key_path, key)
    public = _public(private.public_key())
    belongs = [_public_of(certificate_path, each) == public for each in chain]
    if not any(belongs):
        raise Fault(f"{certificate_path} with {key_path}: the key does not belong to the certificate")
    if not belongs[0]:
        raise Fault(
            f"{certificate_path}: {key_path} is the key of its certificate number {belongs.index(True) + 1}: that one "
            "must be the first, and each must be followed by the one that issued it"
        )
    for number, (one, issuer) in enumerate(pairwise(chain), 1):
        if one.issuer != issuer.subject:
            raise Fault(
                f"{certificate_path}: its certificate number {number} ({one.subject.rfc4514_string()}) was not issued "
                f"by number {number + 1} ({issuer.subject.rfc4514_string()}): put them into the order in which each "
                "is followed by the one that issued it, and leave out what does not belong there"
            )
    identity = Identity(chain[0], cast(CertificateIssuerPrivateKeyTypes, private), tuple(chain[1:]))
    try:
        HostPolicy(identity, FirstUse(), "localhost")  # OpenSSL has its own opinion of what is safe to use
    except SSL.Error as error:
        raise Fault(f"{certificate_path}: OpenSSL refuses it: {describe(error)}") from None
    return identity


def read_bundle(path: str, content: bytes) -> list[x509.Certificate]:
    """Read the certificates of a file, at least one. Fault when there is none, with what is there instead."""
    if not content.strip():
        raise Fault(f"{path}: is empty: it must hold a certificate in PEM")
    if _CERTIFICATE not in content:
        if _KEY in content:
            raise Fault(f"{path}: holds a private key and no certificate: is it swapped with the file of the key?")
        if _is_certificate(content):
            raise Fault(f"{path}: is in DER, not in PEM: openssl x509 -inform der -in {shlex.quote(path)} -out NEW")
    try:
        return read_certificates(content)
    except IdentityError as error:
        raise Fault(f"{path}: {error}") from None


def _read_key(path: str, content: bytes) -> PrivateKeyTypes:
    where = shlex.quote(path)
    if not content.strip():
        raise KeyFault(f"{path}: is empty: it must hold the private key in PEM")
    if _KEY not in content:
        if _CERTIFICATE in content:
            raise KeyFault(
                f"{path}: holds a certificate and no private key: is it swapped with the certificate's file?"
            )
        if _is_key(content):
            raise KeyFault(f"{path}: is in DER, not in PEM: openssl pkey -inform der -in {where} -out NEW")
    try:
        return load_pem_private_key(content, password=None)
    except TypeError:
        raise KeyFault(
            f"{path}: the key is encrypted, and nobody is there to type its password: "
            f"openssl pkey -in {where} -out NEW writes it without"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFault(f"{path}: the key is not a PEM private key ({error})") from None


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public_of(path: str, certificate: x509.Certificate) -> bytes:
    try:
        return _public(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Fault(f"{path}: is for a kind of key that cannot be used ({error})") from None


def _is_certificate(der: bytes) -> bool:
    try:
        x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion):
        return False
    return True


def _is_key(der: bytes) -> bool:
    try:
        load_der_private_key(der, password=None)
    except TypeError:  # it is encrypted
        return True
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True
