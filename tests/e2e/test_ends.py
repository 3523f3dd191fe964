"""A daemon whose certificates end says so wherever people and programs look, and goes on."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lxdsched.sandbox.certs import KeyPair, make_certificate
from tests.e2e.daemon import LXDSCHED, PATIENCE, TOLD_TO_END, clean_environment, daemon
from tests.e2e.replicas import Fleet
from tests.e2e.test_secrets import text

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def lasting(days: int) -> KeyPair:
    return make_certificate(
        "odd", now=NOW, not_before=NOW - 50 * DAY, not_after=NOW + days * DAY + DAY / 2, client=True
    )


@pytest.fixture(scope="module")
def ending() -> KeyPair:
    return lasting(10)


@pytest.fixture(scope="module")
def ended() -> KeyPair:
    return lasting(-10)


@pytest.fixture
def hosts(fleet: Fleet, ending: KeyPair, ended: KeyPair, tmp_path: Path) -> list[dict[str, Any]]:
    """One host that is well, two to which we come with a certificate that ends, one of an authority that has ended."""
    certificate, key = ending.write(tmp_path, "ending")
    authority, _ = ended.write(tmp_path, "ended")
    well, one, two, last = fleet.hosts[:4]
    ours = {"client_cert": str(certificate), "client_key": str(key)}
    verified = {name: last[name] for name in ("host", "client_cert", "client_key")} | {"ca": str(authority)}
    return [well, one | ours, two | ours, verified]


def test_what_ends_is_in_the_log_in_hosts_and_in_the_metrics(
    hosts: list[dict[str, Any]], ending: KeyPair, ended: KeyPair, tmp_path: Path
) -> None:
    with daemon(hosts) as served:
        served.soon(lambda: served.schedule()[1].get("host"), hosts[0]["host"])
        shown = served.ask("GET", "/hosts")[1]["certificates"]
        metrics = text(served, "/metrics")
        assert served.running.end() == TOLD_TO_END
    told = {each["file"]: (each["use"], each["fingerprint"], each["days_left"], each["state"]) for each in shown}
    assert len(shown) == 3
    assert told[hosts[0]["client_cert"]][0::3] == ("client_cert", "good")
    assert told[f"{tmp_path}/ending.crt"] == ("client_cert", ending.fingerprint, 10, "ending")
    assert told[f"{tmp_path}/ended.crt"] == ("ca", ended.fingerprint, -10, "ended")
    end = ending.certificate.not_valid_after_utc
    assert {each["expires_at"] for each in shown} >= {f"{end:%Y-%m-%dT%H:%M:%S}.000Z"}
    sample = f'lxdsched_certificate_expires_timestamp_seconds{{file="{tmp_path}/ending.crt",use="client_cert"}} '
    (value,) = [line.removeprefix(sample) for line in metrics.splitlines() if line.startswith(sample)]
    assert float(value) == end.timestamp()
    said = {line["fingerprint"]: (line["level"], line["msg"]) for line in served.log() if "expires" in line}
    assert said.keys() == {ending.fingerprint, ended.fingerprint}
    assert said[ending.fingerprint][0] == "WARN"
    assert f"client_cert {tmp_path}/ending.crt (for 2 hosts) ends in 10 days" in said[ending.fingerprint][1]
    assert said[ended.fingerprint][0] == "ERROR"
    assert f"ca {tmp_path}/ended.crt (for {hosts[3]['host']}) has ended on " in said[ended.fingerprint][1]


def test_check_says_it_before_the_daemon_does(hosts: list[dict[str, Any]], tmp_path: Path) -> None:
    certificate, key = lasting(3).write(tmp_path, "shown")
    shown = {"LXD_MULTI_SCHEDULER_TLS_CERT": str(certificate), "LXD_MULTI_SCHEDULER_TLS_KEY": str(key)}
    environment = clean_environment(LXD_MULTI_HOSTS=json.dumps(hosts), **shown)
    done = subprocess.run(
        [LXDSCHED, "check"], env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert f"warning: client_cert {tmp_path}/ending.crt (for 2 hosts) ends in 10 days" in done.stderr
    assert f"warning: ca {tmp_path}/ended.crt" in done.stderr
    assert f"warning: tls_cert {certificate} ends in 3 days" in done.stderr
