"""Certificates: the names in one, and which client it belongs to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID

from lxdsched.access import Clients, Right, Shown, Stranger, certificate_names
from tests.unit.access import NOW, clients

KEY = ec.generate_private_key(ec.SECP256R1())
FIRST, SECOND = "a1" * 32, "b2" * 32
DAY = timedelta(days=1)

KNOWN = clients(
    f"""
    [pinned]
    rights = ["read"]
    fingerprints = ["{FIRST.upper()}"]
    [named]
    rights = ["schedule"]
    names = ["named.example.com", "*.example.com", "Joe@example.com", "spiffe://example.com/Joe"]
    [other]
    rights = ["admin"]
    names = ["other.example.com"]
    """
)


def shown(*names: str, fingerprint: str = SECOND, problem: str | None = None) -> Shown:
    return Shown(fingerprint, names, NOW - DAY, NOW + DAY, problem)


def refusal(certificate: Shown, now: datetime = NOW, known: Clients = KNOWN) -> str:
    with pytest.raises(Stranger) as caught:
        known.by_certificate(certificate, now)
    return str(caught.value)


def certificate(*extensions: x509.ExtensionType, common: tuple[str, ...] = ()) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in common])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW.replace(tzinfo=None))
        .not_valid_after((NOW + DAY).replace(tzinfo=None))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256())


def test_a_fingerprint_needs_no_chain() -> None:
    client = KNOWN.by_certificate(shown(fingerprint=FIRST, problem="it is self-signed"), NOW)
    assert (client.name, client.rights) == ("pinned", frozenset({Right.READ}))


def test_a_name_needs_a_chain_to_our_own_authority() -> None:
    assert KNOWN.by_certificate(shown("named.example.com"), NOW).name == "named"
    why = refusal(shown("named.example.com", problem="it is self-signed"))
    assert why == f"the certificate {SECOND} is not known, and its names prove nothing: it is self-signed"
    assert why == refusal(shown("nobody.example.com", problem="it is self-signed"))  # who is known is not told


@pytest.mark.parametrize(
    "name", ["NAMED.example.COM", "Joe@EXAMPLE.com", "spiffe://example.com/Joe", "*.example.com", "*.Example.com"]
)
def test_names_are_compared_without_case_where_they_have_none(name: str) -> None:
    assert KNOWN.by_certificate(shown("unknown", name), NOW).name == "named"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "example.com",
        "joe@example.com",
        "spiffe://example.com/joe",
        "x.example.com",
        "*",
        "*.com",
        "named.*",
        "named",
    ],
)
def test_a_name_matches_nothing_but_itself(name: str) -> None:
    assert refusal(shown(name)) == f"the certificate {SECOND} is not known, nor is a name in it"


def test_a_wildcard_matches_no_client() -> None:
    plain = clients('[a]\nrights = ["read"]\nnames = ["a.example.com"]')
    assert "not known" in refusal(shown("*.example.com"), known=plain)


def test_the_fingerprint_counts_more_than_names() -> None:
    assert KNOWN.by_certificate(shown("other.example.com", fingerprint=FIRST), NOW).name == "pinned"


def test_a_certificate_with_the_names_of_two_clients_is_neithers() -> None:
    assert "the names of more than one client" in refusal(shown("other.example.com", "named.example.com"))
    assert KNOWN.by_certificate(shown("joe@x", "Joe@example.com", "named.example.com"), NOW).name == "named"


@pytest.mark.parametrize("known", [shown(fingerprint=FIRST), shown("named.example.com")])
def test_a_certificate_counts_within_its_dates(known: Shown) -> None:
    assert KNOWN.by_certificate(known, NOW - DAY)
    assert KNOWN.by_certificate(known, NOW + DAY)
    second = timedelta(seconds=1)
    early, late = refusal(known, NOW - DAY - second), refusal(known, NOW + DAY + second)
    assert early == f"the certificate {known.fingerprint} is not valid before 2026-11-25 12:00 UTC"
    assert late == f"the certificate {known.fingerprint} expired on 2026-11-27 12:00 UTC"


def test_a_stranger_is_not_told_of_dates() -> None:
    assert "not known" in refusal(replace(shown("x"), not_after=NOW - DAY))


def test_whether_anybody_is_known_by_a_certificate() -> None:
    assert KNOWN.take_certificates
    assert clients(f'[a]\nrights = ["read"]\nfingerprints = ["{FIRST}"]').take_certificates
    assert clients('[a]\nrights = ["read"]\nnames = ["a"]').take_certificates
    assert not clients('[a]\nrights = ["read"]').take_certificates


def test_names_are_dns_names_addresses_of_mail_and_uris() -> None:
    names = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier("spiffe://Example.com/Joe"),
            x509.DNSName("A.Example.com"),
            x509.RFC822Name("Joe@Example.com"),
            x509.DNSName("a.example.com"),
            x509.DNSName("*.Example.com"),
            x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "directory")])),
            x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        ]
    )
    expected = ("a.example.com", "*.example.com", "Joe@example.com", "spiffe://Example.com/Joe")
    assert certificate_names(certificate(names, common=("common",))) == expected


def test_the_common_name_counts_only_without_any_alternative_name() -> None:
    assert certificate_names(certificate(common=("Common",))) == ("common",)
    other = x509.SubjectAlternativeName([x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))])
    assert certificate_names(certificate(other, common=("common",))) == ()
    assert certificate_names(certificate()) == ()
    assert certificate_names(certificate(common=("a", "b"))) == ()


def test_a_common_name_is_taken_with_all_that_is_in_it() -> None:
    (name,) = certificate_names(certificate(common=("named.example.com\0.evil.example",)))
    assert "not known" in refusal(shown(name))


@pytest.mark.parametrize("content", [b"", b"\x30", b"\x30\x03\x82\x01\xff", b"\x30\x80", b"\x04\x00", b"\xff" * 50])
def test_alternative_names_that_cannot_be_read_are_none(content: bytes) -> None:
    odd = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, content)
    assert certificate_names(certificate(odd, common=("named.example.com",))) == ()


def test_dates_of_any_zone_will_do() -> None:
    assert KNOWN.by_certificate(shown("named.example.com"), datetime.now(UTC).replace(2026, 11, 26, 12)).name == "named"


@pytest.mark.parametrize(
    "name",
    [
        x509.UniformResourceIdentifier("named.example.com"),
        x509.RFC822Name("named.example.com"),
        x509.DNSName("Joe@example.com"),
        x509.DNSName("spiffe://example.com/Joe"),
        x509.RFC822Name("spiffe://Joe@example.com"),
        x509.UniformResourceIdentifier("Joe@example.com"),
    ],
)
def test_a_name_of_another_kind_does_not_count(name: x509.GeneralName) -> None:
    assert certificate_names(certificate(x509.SubjectAlternativeName([name]))) == ()
