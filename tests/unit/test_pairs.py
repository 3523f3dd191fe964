"""What people mistake for a certificate and its key, and what they are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from lxdsched.config.files import Files
from lxdsched.config.pairs import load_pair, read_bundle, read_pair
from lxdsched.config.values import Fault
from lxdsched.sandbox.certs import KeyPair, make_authority, make_certificate
from tests.support import write_secret

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def ca() -> KeyPair:
    return make_authority("ca", now=NOW)


@pytest.fixture(scope="module")
def pair(ca: KeyPair) -> KeyPair:
    return make_certificate("client", now=NOW, issuer=ca)


@pytest.fixture(scope="module")
def other() -> KeyPair:
    return make_certificate("other", now=NOW)


def fault_of(certificate: bytes, key: bytes) -> str:
    with pytest.raises(Fault) as caught:
        read_pair("c.crt", certificate, "c.key", key)
    return str(caught.value)


def traditional(pair: KeyPair, password: bytes | None = None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return pair.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, encryption)


def test_a_pair_is_read_with_its_chain(pair: KeyPair, ca: KeyPair) -> None:
    identity = read_pair("c.crt", pair.cert_pem + ca.cert_pem, "c.key", pair.key_pem)
    assert (identity.certificate, identity.chain) == (pair.certificate, (ca.certificate,))
    assert read_pair("c.crt", pair.cert_pem, "c.key", traditional(pair)).chain == ()


def test_one_file_may_hold_both(pair: KeyPair) -> None:
    both = pair.key_pem + pair.cert_pem
    assert read_pair("both", both, "both", both).certificate == pair.certificate


def test_its_dates_are_not_looked_at_here() -> None:
    for start in (NOW - timedelta(days=9), NOW + timedelta(days=9)):
        odd = make_certificate("odd", now=NOW, not_before=start, not_after=start + timedelta(days=1))
        assert read_pair("c.crt", odd.cert_pem, "c.key", odd.key_pem).expires == odd.certificate.not_valid_after_utc


def test_a_key_of_another_certificate_is_a_fault(pair: KeyPair, other: KeyPair) -> None:
    assert fault_of(pair.cert_pem, other.key_pem) == "c.crt with c.key: the key does not belong to the certificate"


def test_swapped_files_are_a_fault_that_says_so(pair: KeyPair) -> None:
    assert fault_of(pair.key_pem, pair.cert_pem) == (
        "c.crt: holds a private key and no certificate: is it swapped with the file of the key?"
    )
    assert fault_of(pair.cert_pem, pair.cert_pem) == (
        "c.key: holds a certificate and no private key: is it swapped with the certificate's file?"
    )


def test_an_encrypted_key_is_a_fault_that_says_how_to_decrypt_it(pair: KeyPair) -> None:
    pkcs8 = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    for key in (pkcs8, traditional(pair, b"hunter2")):
        found = fault_of(pair.cert_pem, key)
        assert found.startswith("c.key: the key is encrypted")
        assert "openssl pkey -in c.key -out NEW" in found


def test_empty_files_are_a_fault(pair: KeyPair) -> None:
    assert fault_of(b"", pair.key_pem) == "c.crt: is empty: it must hold a certificate in PEM"
    assert fault_of(pair.cert_pem, b" \n") == "c.key: is empty: it must hold the private key in PEM"


def test_der_is_a_fault_that_says_how_to_make_pem_of_it(pair: KeyPair) -> None:
    certificate = pair.certificate.public_bytes(Encoding.DER)
    assert fault_of(certificate, pair.key_pem) == (
        "c.crt: is in DER, not in PEM: openssl x509 -inform der -in c.crt -out NEW"
    )
    for encryption in (NoEncryption(), BestAvailableEncryption(b"hunter2")):
        key = pair.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, encryption)
        assert fault_of(pair.cert_pem, key) == (
            "c.key: is in DER, not in PEM: openssl pkey -inform der -in c.key -out NEW"
        )


def test_a_chain_in_the_wrong_order_is_a_fault_that_says_the_right_one(
    pair: KeyPair, ca: KeyPair, other: KeyPair
) -> None:
    assert fault_of(ca.cert_pem + pair.cert_pem, pair.key_pem).startswith(
        "c.crt: c.key is the key of its certificate number 2: that one must be the first"
    )
    found = fault_of(pair.cert_pem + other.cert_pem + ca.cert_pem, pair.key_pem)
    assert found.startswith("c.crt: its certificate number 1 (CN=root@client,O=linuxcontainers.org) was not issued by ")
    assert "by number 2 (CN=root@other,O=linuxcontainers.org)" in found


@pytest.mark.parametrize("cut", [40, 400])
def test_what_was_cut_off_is_a_fault(cut: int, pair: KeyPair) -> None:
    assert fault_of(pair.cert_pem[:cut], pair.key_pem).startswith("c.crt: holds no PEM certificate")
    assert fault_of(pair.cert_pem, pair.key_pem[: cut // 2 + 20]).startswith("c.key: the key is not a PEM private key")


def test_a_file_of_authorities_is_told_apart_likewise(pair: KeyPair, ca: KeyPair) -> None:
    assert read_bundle("ca.crt", ca.cert_pem + pair.cert_pem) == [ca.certificate, pair.certificate]
    with pytest.raises(Fault, match="holds a private key and no certificate"):
        read_bundle("ca.crt", ca.key_pem)


def load(directory: Path, certificate: bytes, key: bytes, mode: int, key_mode: int) -> list[str]:
    for name, content, bits in (("c.crt", certificate, mode), ("c.key", key, key_mode)):
        write_secret(directory / name, content).chmod(bits)
    faults: list[str] = []
    files = Files(None, allow_exposed=False)
    identity = load_pair(files, faults, certificate=("cert", f"{directory}/c.crt"), key=("key", f"{directory}/c.key"))
    assert (identity is None) == bool(faults)
    return faults


def test_each_fault_is_said_of_the_setting_that_it_is_about(pair: KeyPair, other: KeyPair, tmp_path: Path) -> None:
    assert load(tmp_path, pair.cert_pem, pair.key_pem, 0o644, 0o600) == []
    (exposed,) = load(tmp_path, pair.cert_pem, pair.key_pem, 0o644, 0o644)
    assert exposed.startswith(f"key: {tmp_path}/c.key: mode 0644, ")
    assert load(tmp_path, pair.cert_pem, b"", 0o644, 0o600) == [
        f"key: {tmp_path}/c.key: is empty: it must hold the private key in PEM"
    ]
    assert [each.split(":")[0] for each in load(tmp_path, pair.cert_pem, other.key_pem, 0o644, 0o644)] == [
        "cert",
        "key",
    ]
    (tmp_path / "c.key").unlink()
    faults: list[str] = []
    load_pair(
        Files(None, allow_exposed=True), faults, certificate=("cert", "/nowhere"), key=("key", f"{tmp_path}/c.key")
    )
    assert [each.split(":")[0] for each in faults] == ["cert", "key"]


def test_of_swapped_files_nobody_is_told_to_hide_the_certificate(pair: KeyPair, tmp_path: Path) -> None:
    (found,) = load(tmp_path, pair.key_pem, pair.cert_pem, 0o600, 0o644)
    assert "swapped" in found
