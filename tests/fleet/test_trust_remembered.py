"""Hosts on first use are remembered across restarts; a certificate that changes is refused until a person agrees."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_twisted
from twisted.logger import LogLevel

from lxdsched.model import State
from lxdsched.sandbox.certs import KeyPair, make_certificate
from lxdsched.sandbox.server import SandboxServer
from lxdsched.trust import records
from lxdsched.trust.file import TrustFile
from lxdsched.trust.keeper import Keeper
from lxdsched.trust.records import Known
from tests.conftest import Logged
from tests.fleet.conftest import MakeServer
from tests.support import ANSWERING, eventually, host_settings, only_view, pinned, running_fleet, the_reactor, until

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
OTHER = make_certificate("node", now=NOW)


@pytest.fixture
def file(tmp_path: Path) -> TrustFile:
    return TrustFile(str(tmp_path / "state"))


def keeper(file: TrustFile) -> Keeper:
    """Begin anew, as after a restart."""
    return Keeper(TrustFile(file.directory), the_reactor(), the_reactor().callFromThread, NOW.timestamp)


def write(file: TrustFile, data: bytes) -> None:
    """Have the file hold something else."""
    Path(file.path).write_bytes(data)


def stored(file: TrustFile, server: SandboxServer) -> Known | None:
    return (file.read() or {}).get(server.url)


async def replaced(server: SandboxServer, pair: KeyPair) -> None:
    """Install the host anew: its connections end, and it shows another certificate."""
    await server.stop()
    server.replace_certificate(pair)
    await server.start()


@pytest_twisted.ensureDeferred
async def test_a_host_whose_certificate_changed_between_two_runs_is_refused_and_asked_nothing(
    make_server: MakeServer, pair: KeyPair, file: TrustFile
) -> None:
    server = await make_server()
    first = server.keypair.fingerprint
    async with running_fleet([host_settings(server.url, pair)], keeper=keeper(file)) as fleet:
        assert (await only_view(fleet)).state in ANSWERING
    assert stored(file, server) == Known(first, NOW, "first_use")
    await replaced(server, OTHER)
    asked = len(server.requests.paths)
    async with running_fleet([host_settings(server.url, pair)], keeper=keeper(file)) as fleet:
        view = await only_view(fleet)
        assert view.state is State.UNTRUSTED
        assert view.reason == (
            f"its certificate has changed: it shows {OTHER.fingerprint}, trusted is {first}; "
            f"if the change was meant, `lxdsched trust accept {server.url}`"
        )
    assert len(server.requests.paths) == asked
    known = stored(file, server)
    assert known is not None
    assert (known.fingerprint, known.offered and known.offered.fingerprint) == (first, OTHER.fingerprint)


@pytest_twisted.ensureDeferred
async def test_what_is_accepted_while_it_runs_is_chosen_again(
    make_server: MakeServer, pair: KeyPair, file: TrustFile
) -> None:
    server = await make_server()
    async with running_fleet([host_settings(server.url, pair)], keeper=keeper(file)) as fleet:
        await until(fleet, State.LIVE)
        await replaced(server, OTHER)
        await until(fleet, State.UNTRUSTED)
        file.update(lambda hosts: records.accept(hosts or {}, server.url, OTHER.fingerprint, NOW), 60)
        await until(fleet, State.LIVE)


@pytest_twisted.ensureDeferred
async def test_what_a_host_lacks_beside_the_trust_in_it_is_told_once_that_is_accepted(
    make_server: MakeServer, pair: KeyPair, file: TrustFile, logged: Logged
) -> None:
    server = await make_server()
    async with running_fleet([host_settings(server.url, pair)], keeper=keeper(file)) as fleet:
        await until(fleet, State.LIVE)
        server.state.distrust(pair.fingerprint)
        await replaced(server, OTHER)
        await until(fleet, State.UNTRUSTED)
        file.update(lambda hosts: records.accept(hosts or {}, server.url, OTHER.fingerprint, NOW), 60)
        await eventually(lambda: any("does not trust our" in each for each in logged.messages(LogLevel.warn)))
    assert any("is asked again" in each for each in logged.messages(LogLevel.info))


@pytest_twisted.ensureDeferred
async def test_a_host_that_is_no_longer_trusted_loses_its_connections(
    make_server: MakeServer, pair: KeyPair, file: TrustFile
) -> None:
    server = await make_server()
    async with running_fleet([host_settings(server.url, pair)], keeper=keeper(file)) as fleet:
        await until(fleet, State.LIVE)
        await eventually(lambda: stored(file, server) is not None)
        file.update(lambda hosts: records.accept(hosts or {}, server.url, OTHER.fingerprint, NOW), 60)
        await until(fleet, State.UNTRUSTED)
        await eventually(lambda: server.streams == 0)


@pytest_twisted.ensureDeferred
async def test_a_host_that_was_forgotten_is_met_anew(make_server: MakeServer, pair: KeyPair, file: TrustFile) -> None:
    server = await make_server()
    async with running_fleet([host_settings(server.url, pair)], keeper=keeper(file)) as fleet:
        await until(fleet, State.LIVE)
        await replaced(server, OTHER)
        await until(fleet, State.UNTRUSTED)
        file.update(lambda hosts: records.forget(hosts or {}, server.url), 60)
        await until(fleet, State.LIVE)
        await eventually(lambda: (known := stored(file, server)) is not None and known.fingerprint == OTHER.fingerprint)


@pytest_twisted.ensureDeferred
async def test_a_damaged_store_takes_no_known_host_away_and_lets_no_other_in(
    make_server: MakeServer, pair: KeyPair, file: TrustFile
) -> None:
    known, stranger = await make_server(), await make_server()
    await stranger.stop()
    hosts = [host_settings(known.url, pair), host_settings(stranger.url, pair)]
    ours = keeper(file)
    async with running_fleet(hosts, keeper=ours) as fleet:
        await eventually(lambda: stored(file, known) is not None)
        write(file, b"")
        await eventually(lambda: ours.fault is not None)
        await stranger.start()
        await eventually(lambda: fleet.snapshot()[1].state is State.UNTRUSTED)
        assert f"{file.path}: is damaged" in (fleet.snapshot()[1].reason or "")
        await known.stop()
        await known.start()
        await eventually(lambda: fleet.snapshot()[0].state is State.LIVE)
    assert os.stat(file.path).st_size == 0


@pytest_twisted.ensureDeferred
async def test_a_pin_is_none_of_the_stores_business(make_server: MakeServer, pair: KeyPair, file: TrustFile) -> None:
    server = await make_server()
    file.update(lambda _: {server.url: Known(OTHER.fingerprint, NOW, "first_use")})
    before = file.read()
    hosts = [host_settings(server.url, pair, pinned(server.keypair.fingerprint))]
    async with running_fleet(hosts, keeper=keeper(file)) as fleet:
        await until(fleet, State.LIVE)
    assert file.read() == before
