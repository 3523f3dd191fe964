"""What clients are told in the handshake, and what is remembered of their certificates' chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from cryptography import x509
from OpenSSL import SSL
from twisted.python.failure import Failure

from lxdsched.access import Shown
from lxdsched.chains import MOST_ABOVE, MOST_CONSTRAINTS, MOST_NAMES
from lxdsched.listener.tls import Ask, ServerTls, TlsMaterial
from lxdsched.sandbox.certs import KeyPair, make_authority, make_certificate
from lxdsched.tls import Identity
from tests.e2e.guarded import revocation_list
from tests.unit.chained import certificates, showing, step

NOW = datetime.now(UTC)
VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)


class Protocol:
    """What Twisted puts around a connection, as far as the listener's TLS looks at it."""

    def __init__(self) -> None:
        self.wrappedProtocol = self
        self.problem: str | None = None
        self.failed: list[Failure] = []

    def failVerification(self, failure: Failure) -> None:  # noqa: N802
        """Keep why the connection has to end."""
        self.failed.append(failure)


class Handshake:
    """A handshake in memory: what either side raised, and what the server kept of it."""

    def __init__(
        self,
        material: TlsMaterial,
        version: int,
        pair: KeyPair | None,
        known: Callable[[Shown], bool],
        above: Sequence[x509.Certificate] = (),
    ) -> None:
        self.protocol = Protocol()
        server = ServerTls(material, known).serverConnectionForTLS(cast(Any, self.protocol))
        server.set_app_data(self.protocol)
        server.set_accept_state()
        context = showing(SSL.TLS_CLIENT_METHOD, pair, above)
        context.set_max_proto_version(version)
        client = SSL.Connection(context, None)
        client.set_connect_state()
        self.server = self.client = ""
        for _ in range(4):
            self.client = self.client or step(client, server)
            self.server = self.server or step(server, client)


def material(ask: Ask) -> TlsMaterial:
    """Return what a listener has that asks clients in some way; its CA has issued nothing."""
    pair = make_certificate("localhost", now=NOW)
    return TlsMaterial(Identity(pair.certificate, pair.key), (make_authority("ours", now=NOW).certificate,), (), ask)


@pytest.mark.parametrize("version", VERSIONS)
def test_who_is_not_known_is_refused_within_the_handshake(version: int) -> None:
    pair = make_certificate("ci.example", now=NOW, client=True)
    found = Handshake(material(Ask.REQUIRED), version, pair, lambda _: False)
    assert f"its certificate {pair.fingerprint} is not that of a known client: it is self-signed" in found.server
    if version == SSL.TLS1_2_VERSION:  # with 1.3, clients are done before they hear of it
        assert "alert" in found.client


@pytest.mark.parametrize("version", VERSIONS)
def test_who_shows_nothing_where_it_is_required_is_refused_within_the_handshake(version: int) -> None:
    found = Handshake(material(Ask.REQUIRED), version, None, lambda _: True)
    assert "peer did not return a certificate" in found.server


@pytest.mark.parametrize("ask", [Ask.OPTIONAL, Ask.REQUIRED])
@pytest.mark.parametrize("version", VERSIONS)
def test_who_is_known_gets_in_whatever_speaks_against_the_chain(version: int, ask: Ask) -> None:
    pair = make_certificate("ci.example", now=NOW, client=True)
    found = Handshake(material(ask), version, pair, lambda shown: shown.fingerprint == pair.fingerprint)
    assert (found.server, found.client, found.protocol.failed) == ("", "", [])
    assert found.protocol.problem == "it is self-signed and not the configured CA"


def test_of_all_that_speaks_against_a_chain_the_first_is_kept() -> None:
    others = make_authority("others", now=NOW - timedelta(days=800))
    pair = make_certificate(
        "ci.example", now=NOW - timedelta(days=800), not_after=NOW - timedelta(days=1), issuer=others, client=True
    )
    found = Handshake(material(Ask.OPTIONAL), SSL.TLS1_3_VERSION, pair, lambda _: True)
    assert found.protocol.problem == "it was not issued by the configured CA"


def test_nobody_is_asked_where_no_client_has_a_certificate() -> None:
    pair = make_certificate("ci.example", now=NOW, client=True)
    found = Handshake(material(Ask.NONE), SSL.TLS1_3_VERSION, pair, lambda _: False)
    assert (found.server, found.client, found.protocol.problem) == ("", "", None)


def test_connections_are_to_be_renewed_only_where_clients_are_looked_at_in_another_way() -> None:
    before = material(Ask.OPTIONAL)
    tls = ServerTls(before, lambda _: False)
    pair = make_certificate("localhost", now=NOW)
    other = replace(before, identity=Identity(pair.certificate, pair.key))
    assert not tls.take(other)
    revoked = x509.load_pem_x509_crl(revocation_list(make_authority("ours", now=NOW)))
    for change in ({"revocations": (revoked,)}, {"authorities": ()}, {"ask": Ask.REQUIRED}):
        assert tls.take(replace(other, **change))
        assert tls.take(other)


BOUNDED = [
    (0, 1, 0, ""),
    (MOST_ABOVE, MOST_NAMES, MOST_CONSTRAINTS, ""),
    (MOST_ABOVE + 2, 1, 0, "more than 5 certificates above its own"),
    (1, MOST_NAMES + 1, 0, "more than 200 names"),
    (1, 1, MOST_CONSTRAINTS + 1, "32 constraints on names"),
    (3, 3000, 300, "more than 200 names or 32 constraints"),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ask", [Ask.OPTIONAL, Ask.REQUIRED])
@pytest.mark.parametrize(("above", "names", "constraints", "refused"), BOUNDED)
def test_a_chain_that_would_take_long_is_not_looked_at(
    above: int, names: int, constraints: int, refused: str, ask: Ask, version: int
) -> None:
    pair, chain = certificates(above, names, constraints)
    found = Handshake(material(ask), version, pair, lambda _: True, chain)
    if refused:
        assert refused in found.server
    else:
        assert found.server == ""


def test_what_cannot_be_read_of_a_certificate_is_taken_for_many_names() -> None:
    pair, _ = certificates(0, 3000, 0, damaged=True)
    found = Handshake(material(Ask.OPTIONAL), SSL.TLS1_3_VERSION, pair, lambda _: True)
    assert "more than 200 names" in found.server
    pair, _ = certificates(0, 5, 0, damaged=True)
    assert Handshake(material(Ask.OPTIONAL), SSL.TLS1_3_VERSION, pair, lambda _: True).server == ""


def test_the_authority_that_is_trusted_may_have_any_number_of_constraints() -> None:
    pair, (authority,) = certificates(1, 1, 10 * MOST_CONSTRAINTS)
    trusting = replace(material(Ask.OPTIONAL), authorities=(authority,))
    found = Handshake(trusting, SSL.TLS1_3_VERSION, pair, lambda _: True, [authority])
    assert (found.server, found.protocol.problem) == ("", None)
