"""Which certificates of hosts are trusted, and how a refusal is told."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import pytest_twisted
from twisted.logger import LogLevel

from lxdsched.fleet.connections import READ
from lxdsched.model import State, View
from lxdsched.sandbox.certs import KeyPair, make_authority, make_certificate
from lxdsched.sandbox.server import SandboxServer
from lxdsched.tls import Authority, FirstUse, IdentityError, read_fingerprint
from tests.conftest import Logged
from tests.fleet.conftest import MakeServer
from tests.support import ANSWERING, host_settings, only_view, pinned, running_fleet

NOW = datetime.now(UTC)
AUTHORITY = make_authority("company", now=NOW)
TRUST = Authority((AUTHORITY.certificate,))


async def seen(server: SandboxServer, pair: KeyPair, trust: object) -> View:
    async with running_fleet([host_settings(server.url, pair, trust)]) as fleet:  # type: ignore[arg-type]
        return await only_view(fleet)


@pytest_twisted.ensureDeferred
async def test_a_pinned_certificate_is_trusted_whatever_its_name_and_dates(
    make_server: MakeServer, pair: KeyPair
) -> None:
    old = make_certificate("x", now=NOW, san=None, not_before=datetime(2001, 1, 1, tzinfo=UTC),
                           not_after=datetime(2002, 1, 1, tzinfo=UTC))  # fmt: skip
    server = await make_server(old)
    assert (await seen(server, pair, pinned(old.fingerprint))).state in ANSWERING


@pytest_twisted.ensureDeferred
async def test_another_certificate_than_the_pinned_one_is_refused_and_both_are_shown(
    make_server: MakeServer, pair: KeyPair, logged: Logged
) -> None:
    server = await make_server()
    view = await seen(server, pair, pinned("ab" * 32))
    assert view.state is State.UNTRUSTED
    assert view.reason == (
        f"its certificate is not the pinned one: it shows {server.keypair.fingerprint}, pinned is {'ab' * 32}"
    )
    assert logged.messages(LogLevel.warn) == [f"host {server.url} is untrusted: {view.reason}"]


@pytest_twisted.ensureDeferred
async def test_a_refused_host_is_never_asked_anything(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    await seen(server, pair, pinned("ab" * 32))
    assert not server.requests.paths


@pytest_twisted.ensureDeferred
async def test_without_any_trust_the_first_certificate_is_taken_and_its_fingerprint_told(
    make_server: MakeServer, pair: KeyPair, logged: Logged
) -> None:
    server = await make_server()
    assert (await seen(server, pair, None)).state in ANSWERING
    (message,) = logged.messages(LogLevel.warn)
    assert message == (
        f"host {server.url} is trusted on first use; to pin it, set its fingerprint to {server.keypair.fingerprint}"
    )


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_changes_after_the_first_use_is_refused(
    make_server: MakeServer, pair: KeyPair
) -> None:
    server = await make_server()
    first = server.keypair.fingerprint
    async with running_fleet([host_settings(server.url, pair)]) as fleet:
        assert (await only_view(fleet)).state in ANSWERING
        other = make_certificate("node", now=NOW)
        await server.stop()
        server.replace_certificate(other)
        await server.start()
        view = await only_view(fleet)
        assert view.state is State.UNTRUSTED
        assert f"it shows {other.fingerprint}, first seen was {first}" in (view.reason or "")


def test_first_use_is_once_even_for_two_handshakes_at_the_same_time() -> None:
    told: list[str] = []
    trust = FirstUse(told.append)
    one, two = make_certificate("a", now=NOW), make_certificate("b", now=NOW)
    trust.check(one.certificate, "x", None)
    trust.check(two.certificate, "x", None)
    trust.proven(one.certificate)
    with pytest.raises(Exception, match="has changed"):
        trust.check(two.certificate, "x", None)
    assert told == [one.fingerprint]


@pytest_twisted.ensureDeferred
async def test_an_authority_is_trusted_where_the_address_is_named(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server(make_certificate("node", now=NOW, san=["127.0.0.1"], issuer=AUTHORITY))
    assert (await seen(server, pair, TRUST)).state in ANSWERING


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ({"san": None, "issuer": AUTHORITY}, "it has no subjectAltName"),
        ({"san": ["127.0.0.2"], "issuer": AUTHORITY}, "it is not for 127.0.0.1"),
        ({"issuer": AUTHORITY}, "it is not for 127.0.0.1"),
        ({"san": ["127.0.0.1"]}, "it is self-signed and not the configured CA"),
        (
            {"san": ["127.0.0.1"], "issuer": make_authority("other", now=NOW)},
            "it was not issued by the configured CA",
        ),
        (
            {
                "san": ["127.0.0.1"],
                "issuer": AUTHORITY,
                "not_before": datetime(2020, 1, 1, tzinfo=UTC),
                "not_after": datetime(2021, 1, 1, tzinfo=UTC),
            },
            "it has expired",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_with_an_authority_chain_dates_and_name_must_all_be_right(
    make_server: MakeServer, pair: KeyPair, kind: dict[str, object], reason: str
) -> None:
    server = await make_server(make_certificate("node", now=NOW, **kind))  # type: ignore[arg-type]
    view = await seen(server, pair, TRUST)
    assert view.state is State.UNTRUSTED
    assert reason in (view.reason or "")
    assert server.keypair.fingerprint in (view.reason or "")
    assert not server.requests.paths


@pytest_twisted.ensureDeferred
async def test_names_are_matched_for_hosts_that_are_named(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server(make_certificate("localhost", now=NOW, issuer=AUTHORITY))
    url = server.url.replace("127.0.0.1", "localhost")
    async with running_fleet([host_settings(url, pair, TRUST)]) as fleet:
        assert (await only_view(fleet)).state in ANSWERING


@pytest.mark.parametrize("text", ["AB:" * 31 + "AB", "ab" * 32, " " + "Ab" * 32 + "\n"])
def test_a_fingerprint_may_be_written_as_people_copy_it(text: str) -> None:
    assert read_fingerprint(text) == "ab" * 32


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "xy" * 32])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(IdentityError):
        read_fingerprint(text)


@pytest_twisted.ensureDeferred
async def test_little_of_what_a_host_says_is_taken_in_at_once(make_server: MakeServer, pair: KeyPair) -> None:
    server = await make_server()
    async with running_fleet([host_settings(server.url, pair, pinned(server.keypair.fingerprint))]) as fleet:
        await fleet.views()
        (host,) = fleet._hosts.values()
        connections = host._client._connections
        sizes = {each.transport.transport.bufferSize for each in connections.open | connections.streams}  # type: ignore[union-attr]
        assert sizes == {READ}
