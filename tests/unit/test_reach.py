"""Who can connect, and what is said of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from lxdsched.cli import main
from lxdsched.listener.reach import exposure, is_local, open_to_others, url
from tests.support import the_reactor, write_secret

PREFIX = "LXD_MULTI_SCHEDULER_"


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("tcp:8080", "http://0.0.0.0:8080"),
        ("tcp:8080:interface=192.0.2.5", "http://192.0.2.5:8080"),
        ("tcp:port=8080:interface=192.0.2.5:backlog=9", "http://192.0.2.5:8080"),
        ("tcp:8080:backlog=9:interface=", "http://0.0.0.0:8080"),
        ("tcp:8080:interface=127.0.0.1", None),
        ("tcp:8080:interface=127.9.9.9", None),
        ("tcp6:8080", "http://[::]:8080"),
        (r"tcp6:8080:interface=\:\:1", None),
        (r"tcp6:8080:interface=2001\:db8\:\:1", "http://[2001:db8::1]:8080"),
        (r"tcp6:8080:interface=fe80\:\:1%eth0", "http://[fe80::1%eth0]:8080"),
        ("tcp:8080:127.0.0.1", None),
        ("tcp:8080:192.0.2.5", "http://192.0.2.5:8080"),
        ("tcp:8080:192.0.2.5:9", "http://192.0.2.5:8080"),
        ("tcp:interface=192.0.2.5:8080", "http://192.0.2.5:8080"),
        ("tcp:8080::9", "http://0.0.0.0:8080"),
        ("tcp:8080:interface=0", "http://0.0.0.0:8080"),
        ("tcp:8080:127.1", None),
        (r"tcp:8080:2001\:db8\:\:1", "http://[2001:db8::1]:8080"),
        (r"tcp6:8080:9:\:\:1", None),
        (r"tcp6:8080:9:2001\:db8\:\:1", "http://[2001:db8::1]:8080"),
        (r"tcp6:8080:interface=\:\:ffff\:127.0.0.1", None),
        ("TCP6:8080", "http://[::]:8080"),
        ("tcp:8080:interface=localhost", None),
        ("tcp:8080:1:2:3", None),
        ("unix:/run/x:mode=660", None),
        ("systemd:domain=INET:index=0", None),
    ],
)
def test_an_endpoint_is_open_to_others_or_is_not(endpoint: str, url: str | None) -> None:
    assert open_to_others(endpoint, secure=False) == url


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp:0",
        "tcp:0:127.0.0.1",
        "tcp:0:127.0.0.2:9",
        "tcp:0::9",
        "tcp:0:0",
        "tcp:0:127.1",
        "tcp:0:interface=",
        "tcp:interface=127.0.0.1:0",
        r"tcp:0:interface=\:\:1",
        r"tcp:0:interface=\:\:",
        "tcp6:0",
        "TCP6:0",
        r"tcp6:0:9:\:\:1",
        r"tcp6:0:interface=\:\:1",
        "tcp6:0:interface=",
        "tcp6:0:interface=127.0.0.1",
        r"tcp6:0:interface=\:\:ffff\:127.0.0.1",
    ],
)
@pytest_twisted.ensureDeferred
async def test_twisted_listens_where_it_is_said(endpoint: str) -> None:
    listening: list[IListeningPort] = []
    failed: list[Failure] = []
    serverFromString(the_reactor(), endpoint).listen(Factory()).addCallbacks(listening.append, failed.append)
    if failed:
        pytest.skip(f"it cannot be listened there on this machine: {failed[0].value}")
    host = cast(Any, listening[0].getHost()).host
    await maybeDeferred(listening[0].stopListening)
    assert open_to_others(endpoint, secure=False) == (None if is_local(host) else url(host, 0, secure=False))


def test_what_is_wrong_with_what_is_open_to_others() -> None:
    assert "no access control: whoever reaches x may" in str(exposure("x", guarded=False, secure=True))
    assert "keys cross the network unencrypted to x" in str(exposure("x", guarded=True, secure=False))
    assert exposure("x", guarded=True, secure=True) is None


def test_check_says_what_the_daemon_will(
    entry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(**settings: str) -> str:
        for name, value in settings.items():
            monkeypatch.setenv(PREFIX + name, value)
        assert main(["check"]) == 0
        return capsys.readouterr().err

    monkeypatch.setenv("LXD_MULTI_HOSTS", json.dumps([entry]))
    assert "reaches" not in said(PORT="8081")
    assert "warning: there is no access control: whoever reaches http://[::]:8081 may" in said(INTERFACE="::")
    assert "to http://[::]:8081: set" in said(CLIENTS_FILE=str(write_secret(tmp_path / "clients.toml", "")))
    certificate, key = str(entry["client_cert"]), str(entry["client_key"])
    assert "http" not in said(TLS_CERT=certificate, TLS_KEY=key)
