"""No secret of the daemon shows, wherever people or programs look."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.daemon import (
    LXDSCHED,
    PATIENCE,
    TOLD_TO_END,
    TWISTD,
    Daemon,
    clean_environment,
    daemon,
    faulty,
    free_port,
    run,
)
from tests.e2e.replicas import Fleet
from tests.support import write_secret

PASSWORD, SENTINELS = "hunter-two", "hunter-three"


def text(served: Daemon, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def secrets(fleet: Fleet) -> list[str]:
    """All that must not show: both passwords, and every line of the key."""
    key = Path(fleet.hosts[0]["client_key"]).read_text().splitlines()[1:-1]
    assert key
    return [PASSWORD, SENTINELS, *key]


@contextmanager
def secretive(fleet: Fleet, directory: Path, *options: str) -> Iterator[Daemon]:
    """Run a daemon that has secrets of each kind, and says all there is to say; its Redis is dead."""
    config = write_secret(directory / "lxdsched.toml", f'redis_url = "redis://joe:{PASSWORD}@127.0.0.1:{free_port()}"')
    with daemon(fleet.hosts, f"--config={config}", "--log-level=DEBUG", "--redis-timeout=0.1", *options) as served:
        yield served


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_secret_shows_in_the_log_or_in_an_answer_or_in_ps(fleet: Fleet, tmp_path: Path, form: str) -> None:
    with secretive(fleet, tmp_path, f"--log-format={form}") as served:
        served.soon(lambda: served.schedule()[0], 200)
        served.soon(lambda: served.ask("GET", "/readyz")[1].get("status"), "degraded")
        seen = [text(served, path) for path in ("/hosts", "/metrics", "/readyz", "/reservations", "/nothing")]
        process = Path(f"/proc/{served.running.process.pid}")
        seen.append((process / "cmdline").read_text())
        limits = (process / "limits").read_text()
        assert served.running.end() == TOLD_TO_END
    assert "certificates" in seen[0]
    assert "lxdsched_certificate" in seen[1]
    said = "\n".join(served.running.lines)
    assert "127.0.0.1" in said  # it did try
    assert "/readyz" in said  # at DEBUG
    seen.append(said)
    assert [secret for secret in secrets(fleet) for each in seen if secret in each] == []
    (cores,) = [line.split()[-3:-1] for line in limits.splitlines() if line.startswith("Max core file size")]
    assert cores == ["0", "0"]


def test_no_secret_shows_in_what_is_said_of_a_configuration(fleet: Fleet, tmp_path: Path) -> None:
    sentinels = write_secret(tmp_path / "pw", f"{SENTINELS}\n")
    sentinels.chmod(0o644)
    url = f"redis+sentinel://joe:{PASSWORD}@127.0.0.1:1/fleet"
    given = {
        "LXD_MULTI_HOSTS": json.dumps(fleet.hosts),
        "LXD_MULTI_SCHEDULER_REDIS_SENTINEL_PASSWORD_FILE": str(sentinels),
    }
    for command, said in (
        ([LXDSCHED, "check"], "mode 0644"),
        ([*TWISTD, "--port=x", "--strategy=y"], "--port: is 'x'"),
        ([*TWISTD, f"--redis-url={url}"], "--redis-url: has a password"),
    ):
        environment = clean_environment(**given, LXD_MULTI_SCHEDULER_REDIS_URL=url)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert done.returncode == faulty(command)
        assert said in done.stderr
        assert [secret for secret in secrets(fleet) if secret in done.stdout + done.stderr] == []


def test_the_key_of_a_simulated_fleet_is_its_owners_alone(tmp_path: Path) -> None:
    with run([LXDSCHED, "sandbox", "--hosts=1", f"--directory={tmp_path}"], clean_environment()) as sandbox:
        sandbox.wait_for("LXD_MULTI_HOSTS=")
        keys = [path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if b"PRIVATE KEY" in path.read_bytes()]
        assert sandbox.end() == 0
    assert keys == [0o600]
