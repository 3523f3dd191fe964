"""Whom the connection to Redis trusts, and as whom it comes, over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_twisted

from lxdsched.ledger.settings import RedisSettings, RedisTls
from lxdsched.sandbox.certs import KeyPair, make_authority, make_certificate
from lxdsched.tls import Authority, Identity, SystemAuthority, Trust
from tests.redis.groups import sentinels
from tests.redis.linked import fault_of, linked, settings
from tests.redis.server import RedisServer, TlsFiles, redis_server

pytestmark = pytest.mark.real_redis

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class House:
    """An authority, where it is written, and what it issues."""

    ca: KeyPair
    directory: Path

    def issue(self, stem: str, *san: str, client: bool = False, **more: object) -> KeyPair:
        return make_certificate(stem, now=NOW, san=san, issuer=self.ca, client=client, **more)  # type: ignore[arg-type]

    def files(self, pair: KeyPair, *, clients: bool = False) -> TlsFiles:
        certificate, key = pair.write(self.directory, pair.fingerprint[:8])
        if not clients:
            return TlsFiles(certificate, key)
        return TlsFiles(certificate, key, self.ca_file, self.issue("cli", client=True).write(self.directory, "cli"))

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.crt"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    directory = tmp_path_factory.mktemp("house")
    ca = make_authority("ca", now=NOW)
    (directory / "ca.crt").write_bytes(ca.cert_pem)
    return House(ca, directory)


@pytest.fixture(scope="module")
def server(house: House) -> Iterator[RedisServer]:
    with redis_server(tls=house.files(house.issue("redis-1", "127.0.0.1")), password="word") as running:
        yield running


def over_tls(server: RedisServer, trust: Trust, client: KeyPair | None = None) -> RedisSettings:
    identity = None if client is None else Identity(client.certificate, client.key)
    return settings(server.url, tls=RedisTls(trust, identity))


def of(*pairs: KeyPair) -> Authority:
    return Authority(tuple(pair.certificate for pair in pairs))


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_the_authority_for_this_address_is_trusted(house: House, server: RedisServer) -> None:
    async with linked(over_tls(server, of(house.ca))) as it:
        await it.open()
        runs = [it.adding() for _ in range(50)]
        assert [await run for run in runs] == list(range(1, 51))


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_somebody_elses_authority_is_not(house: House, server: RedisServer) -> None:
    other = make_authority("other", now=NOW)
    for trust in (of(other), SystemAuthority()):
        why = await fault_of(over_tls(server, trust))
        assert why.startswith(f"{server.address} is not trusted: its certificate ")
        assert why.endswith("it was not issued by the configured CA")


@pytest_twisted.ensureDeferred
async def test_the_systems_authorities_are_those_that_openssl_finds(
    house: House, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(house.ca_file))
    async with linked(over_tls(server, SystemAuthority())) as it:
        await it.open()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        ({"stem": "127.0.0.2"}, "it is not for 127.0.0.1"),
        ({"stem": "redis-1"}, "it is not for 127.0.0.1"),
        ({"stem": "127.0.0.1", "san": None}, "it has no subjectAltName"),
        (
            {"stem": "127.0.0.1", "not_after": NOW - timedelta(days=1), "not_before": NOW - timedelta(days=2)},
            "it has expired",
        ),
        ({"stem": "127.0.0.1", "client": True}, "it is not meant for servers"),
    ],
)
async def test_a_certificate_that_is_not_this_servers_is_not(
    certificate: dict[str, object], why: str, house: House
) -> None:
    stem = str(certificate.pop("stem"))
    pair = make_certificate(stem, now=NOW, issuer=house.ca, **certificate)  # type: ignore[arg-type]
    with redis_server(tls=house.files(pair)) as server:
        found = await fault_of(over_tls(server, of(house.ca)))
    assert found == f"{server.address} is not trusted: its certificate {pair.fingerprint} is refused: {why}"


@pytest_twisted.ensureDeferred
async def test_a_name_is_checked_as_a_name(house: House) -> None:
    with redis_server(tls=house.files(house.issue("localhost"))) as server:
        trust = RedisTls(of(house.ca))
        async with linked(settings(f"rediss://localhost:{server.port}", tls=trust)) as it:
            await it.open()
        assert "it is not for 127.0.0.1" in await fault_of(settings(server.url, tls=trust))


@pytest_twisted.ensureDeferred
async def test_a_server_that_asks_for_our_certificate_gets_it(house: House) -> None:
    with redis_server(tls=house.files(house.issue("127.0.0.1"), clients=True)) as server:
        async with linked(over_tls(server, of(house.ca), house.issue("we", client=True))) as it:
            await it.open()
            assert await it.add() == 1
        assert "certificate required" in await fault_of(over_tls(server, of(house.ca)))
        stranger = make_certificate("we", now=NOW, client=True)
        assert "we do not agree on TLS: " in await fault_of(over_tls(server, of(house.ca), stranger))


@pytest_twisted.ensureDeferred
async def test_tls_1_2_will_do(house: House) -> None:
    options = {"tls-protocols": '"TLSv1.2"'}
    with redis_server(tls=house.files(house.issue("127.0.0.1")), options=options) as server:
        async with linked(over_tls(server, of(house.ca))) as it:
            await it.open()
            assert await it.add() == 1


@pytest_twisted.ensureDeferred
async def test_who_speaks_tls_and_who_does_not_find_out(house: House, server: RedisServer) -> None:
    plain = settings(server.url.replace("rediss://", "redis://"))
    assert await fault_of(plain) in {
        f"{server.address} has closed the connection",
        f"{server.address} does not speak the protocol of Redis",
    }
    with redis_server() as bare:
        secure = settings(bare.url.replace("redis://", "rediss://"), tls=RedisTls(of(house.ca)))
        async with linked(secure) as it:
            # It waits for the end of what it takes for a command.
            assert await it.fault(0.1) == f"{bare.address} did not answer within 0.1 s"


@pytest_twisted.ensureDeferred
async def test_a_server_that_dies_and_one_that_hangs_are_lost(house: House) -> None:
    with redis_server(tls=house.files(house.issue("127.0.0.1"))) as server:
        async with linked(over_tls(server, of(house.ca))) as it:
            await it.open()
            server.suspend()
            assert await it.failure(timeout=0.05) == f"{server.address} did not answer within 0.05 s"
            assert await it.fault(0.05) == f"{server.address} did not answer within 0.05 s"
            server.resume()
            await it.open()
            run = it.adding(timeout=30)
            await run
            server.kill()
            assert "there is no connection" in await it.failure() or len(it.lost) == 2


@pytest_twisted.ensureDeferred
async def test_sentinels_and_their_servers_speak_tls(house: House) -> None:
    files = house.files(house.issue("127.0.0.1"), clients=True)
    with redis_server(tls=files) as primary, sentinels(primary, tls=files) as watchers:
        ours = house.issue("we", client=True)
        trusted = RedisTls(of(house.ca), Identity(ours.certificate, ours.key))
        async with linked(settings(watchers.url, tls=trusted)) as it:
            await it.open()
            assert await it.add() == 1
        stranger = RedisTls(of(make_authority("other", now=NOW)), Identity(ours.certificate, ours.key))
        assert (await fault_of(settings(watchers.url, tls=stranger))).count("Sentinel") == 3
