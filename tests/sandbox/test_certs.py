from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from lxdsched.sandbox import make_authority, make_certificate

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_certificate_looks_like_one_that_lxd_made_for_itself() -> None:
    certificate = make_certificate("node-1", now=NOW, san=["127.0.0.1", "node-1.example"]).certificate
    assert certificate.issuer == certificate.subject
    assert certificate.subject.rfc4514_string() == "CN=root@node-1,O=linuxcontainers.org"
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP384R1)
    assert certificate.not_valid_before_utc == NOW
    assert certificate.not_valid_after_utc - NOW == timedelta(days=3650)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node-1", "node-1.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_a_certificate_can_lack_alternative_names_altogether() -> None:
    certificate = make_certificate("node-1", now=NOW, san=None).certificate
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_a_certificate_can_be_issued_by_a_test_authority() -> None:
    authority = make_authority("Test CA", now=NOW)
    leaf = make_certificate("node-1", now=NOW, issuer=authority)
    leaf.certificate.verify_directly_issued_by(authority.certificate)


def test_a_certificate_can_be_expired() -> None:
    past = make_certificate("node-1", now=NOW, not_before=NOW - timedelta(2), not_after=NOW - timedelta(1))
    assert past.certificate.not_valid_after_utc == NOW - timedelta(1)


def test_the_fingerprint_is_the_sha256_of_the_der() -> None:
    pair = make_certificate("node-1", now=NOW)
    assert pair.fingerprint == hashlib.sha256(pair.certificate.public_bytes(Encoding.DER)).hexdigest()


def test_written_files_hold_the_pair_and_the_key_is_private(tmp_path: Path) -> None:
    pair = make_certificate("node-1", now=NOW)
    (tmp_path / "client.key").touch(0o644)
    cert_path, key_path = pair.write(tmp_path, "client")
    assert x509.load_pem_x509_certificate(cert_path.read_bytes()) == pair.certificate
    key = load_pem_private_key(key_path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.private_numbers() == pair.key.private_numbers()
    assert key_path.stat().st_mode & 0o777 == 0o600
