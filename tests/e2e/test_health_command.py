"""`lxdsched health` beside running daemons, by the very environment that these have."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.daemon import LXDSCHED, PATIENCE, Daemon, clean_environment, free_port
from tests.e2e.guarded import Outfit, guarded
from tests.e2e.replicas import Fleet, simulated, soon

PREFIX = "LXD_MULTI_SCHEDULER_"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with simulated(1) as it:
        yield it


@pytest.fixture(scope="module")
def outfit(tmp_path_factory: pytest.TempPathFactory) -> Outfit:
    return Outfit(tmp_path_factory.mktemp("outfit"))


def health(settings: Mapping[str, str], *options: str) -> tuple[int, str]:
    """Ask; return the exit status and all that was said."""
    ended = subprocess.run(
        [LXDSCHED, "health", "--timeout", str(PATIENCE), *options],
        env=clean_environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE,
    )
    return ended.returncode, (ended.stdout + ended.stderr).strip()


def shown(outfit: Outfit, listener: str, daemon: Daemon) -> str:
    if listener == "unix":
        return f"unix:{outfit.directory / 'socket'}"
    return f"{'https' if listener.startswith('tls') else 'http'}://127.0.0.1:{daemon.port}"


@pytest.mark.parametrize("listener", ["plain", "unix", "tls", "tls, optional"])
def test_health_needs_no_credential_on_any_listener(fleet: Fleet, outfit: Outfit, listener: str) -> None:
    with guarded(list(fleet.hosts), outfit, listener) as (daemon, _):
        where = shown(outfit, listener, daemon)
        settings = outfit.settings(listener, daemon.port)
        assert health(settings) == (0, f"{where}/healthz: ok")
        soon(lambda: health(settings, "--ready"), (0, f"{where}/readyz: ready"))
        daemon.running.end()
        status, said = health(settings)
        assert status == 1
        assert said.startswith(f"lxdsched health: {where}/healthz: [Errno ")


def test_a_listener_that_requires_certificates_is_known_to_answer(fleet: Fleet, outfit: Outfit) -> None:
    with guarded(list(fleet.hosts), outfit, "tls, required") as (daemon, _):
        where = f"https://127.0.0.1:{daemon.port}"
        settings = outfit.settings("tls, required", daemon.port)
        assert health(settings) == (0, f"{where}/healthz: it answers, and only to clients with a certificate")
        wanted = f"lxdsched health: {where} answers only to clients with a certificate: set metrics_endpoint"
        assert health(settings, "--ready") == (1, wanted)
        daemon.running.end()
        assert health(settings)[0] == 1


def test_a_door_for_those_who_watch_is_asked_first(fleet: Fleet, outfit: Outfit) -> None:
    port = free_port()
    aside = {f"{PREFIX}METRICS_ENDPOINT": f"tcp:{port}:interface=127.0.0.1"}
    with guarded(list(fleet.hosts), outfit, "tls, required", **aside) as (daemon, _):
        settings = outfit.settings("tls, required", daemon.port) | aside
        soon(lambda: health(settings, "--ready"), (0, f"http://127.0.0.1:{port}/readyz: ready"))


def test_a_daemon_without_its_hosts_is_well_and_not_ready(outfit: Outfit, tmp_path: Path) -> None:
    certificate, key = outfit.pairs["pinned"].write(tmp_path, "client")
    nobody = f"https://127.0.0.1:{free_port()}"
    with guarded([{"host": nobody, "client_cert": str(certificate), "client_key": str(key)}], outfit, "plain") as (
        daemon,
        _,
    ):
        settings = outfit.settings("plain", daemon.port)
        assert health(settings)[0] == 0
        status, said = health(settings, "--ready")
        assert status == 1
        assert f"http://127.0.0.1:{daemon.port}/readyz: 503 " in said


def test_the_file_may_say_where_the_daemon_listens(fleet: Fleet, outfit: Outfit, tmp_path: Path) -> None:
    with guarded(list(fleet.hosts), outfit, "plain") as (daemon, _):
        (file := tmp_path / "lxdsched.toml").write_text(f'port = {daemon.port}\ninterface = "0.0.0.0"\n')
        well = (0, f"http://127.0.0.1:{daemon.port}/healthz: ok")
        assert health({}, "--config", str(file)) == well
        assert health({f"{PREFIX}CONFIG": str(file)}) == well
