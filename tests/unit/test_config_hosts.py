"""How hosts are configured, and how every fault in them is found."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lxdsched.config import Sources, load
from lxdsched.config.hosts import address
from lxdsched.config.values import Fault
from lxdsched.sandbox.certs import KeyPair, make_certificate
from tests.unit.conftest import configure, faults, warnings


def test_plain_strings_use_the_default_pair(paths: tuple[str, str], entry: dict[str, Any]) -> None:
    config = configure(
        ["node-1", entry], LXD_MULTI_SCHEDULER_CLIENT_CERT=paths[0], LXD_MULTI_SCHEDULER_CLIENT_KEY=paths[1]
    )
    assert [(host.host, host.url) for host in config.hosts] == [
        ("node-1", "https://node-1:8443"),
        ("https://192.0.2.1:8443", "https://192.0.2.1:8443"),
    ]
    assert config.hosts[0].identity is config.hosts[1].identity


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        ("x", "LXD_MULTI_HOSTS: is not JSON: JSON is malformed: invalid character (byte 0)"),
        ("{}", "LXD_MULTI_HOSTS: must be an array of hosts"),
        ("[]", "LXD_MULTI_HOSTS: names no host"),
    ],
)
def test_hosts_that_are_no_array_of_hosts_are_a_fault(raw: str, fault: str) -> None:
    assert faults(None, LXD_MULTI_HOSTS=raw) == [fault]


def test_without_hosts_it_does_not_start() -> None:
    assert faults(None) == ["LXD_MULTI_HOSTS: is not set: name the LXD hosts, as the shoes-lxd-multi server has them"]


def test_the_same_host_named_twice_would_count_its_capacity_twice(entry: dict[str, Any]) -> None:
    twin = entry | {"host": "192.0.2.1:8443"}
    assert faults([entry, twin]) == [
        "LXD_MULTI_HOSTS: '192.0.2.1:8443' is the same host as 'https://192.0.2.1:8443', named twice"
    ]


def test_a_key_that_belongs_to_another_certificate_is_a_fault(entry: dict[str, Any], tmp_path: Path) -> None:
    _, key = make_certificate("other", now=datetime.now(UTC)).write(tmp_path, "other")
    (fault,) = faults([entry | {"client_key": str(key)}])
    assert fault.endswith("the key does not belong to the certificate")


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (
            {"fingerprint": "12:34"},
            "fingerprint: 12:34 is not a SHA-256 fingerprint: 64 hexadecimal digits, colons allowed",
        ),
        ({"fingerprint": 5}, "fingerprint: must be a text"),
        ({"fingerprint": "0" * 64, "ca": "x"}, ": fingerprint and ca exclude each other, give one"),
        ({"over_commit_percent": "many"}, "over_commit_percent: is 'many', not a whole number"),
        ({"reserve_memory": "1.5GiB"}, "reserve_memory: '1.5GiB' is not a size such as 2GiB or 500MB"),
        ({"labels": ["a"]}, "labels: must be an object of texts"),
        ({"certificate": "x"}, "certificate: is not a setting of a host; these are: "),
    ],
)
def test_a_hosts_own_settings_are_checked(entry: dict[str, Any], more: dict[str, Any], fault: str) -> None:
    (found,) = faults([entry | more])
    assert fault in found


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("node-1", "https://node-1:8443"),
        ("node-1:443", "https://node-1:443"),
        ("node_1", "https://node_1:8443"),
        ("192.0.2.1", "https://192.0.2.1:8443"),
        ("[2001:db8::1]", "https://[2001:db8::1]:8443"),
        ("https://node-1", "https://node-1:443"),
        ("https://node-1:8443/", "https://node-1:8443"),
        ("HTTPS://Node-1:8443", "https://node-1:8443"),
        ("https://bücher.example:8443", "https://xn--bcher-kva.example:8443"),
    ],
)
def test_a_host_may_be_written_short(host: str, url: str) -> None:
    assert address(host) == url


@pytest.mark.parametrize(
    "host",
    [
        "http://x",
        "https://",
        "https://x/1.0",
        "https://x?y",
        "x:port",
        "x:99999",
        "[::1",
        "2001:db8::1",
        "unix:///s",
        "a" * 64,
        "a..b",
        "x:0",
        "ho st",
        "*",
        "-x-",
        "a%20b",
        "https://[fe80::1%lo]:8443",
        "\0x",
    ],
)
def test_what_is_no_host_is_a_fault_that_shows_it(host: str) -> None:
    with pytest.raises(Fault) as caught:
        address(host)
    assert repr(host) in str(caught.value)


def test_what_may_be_a_password_in_a_hosts_url_is_not_shown() -> None:
    with pytest.raises(Fault) as caught:
        address("https://u:hunter2@x")
    assert str(caught.value) == "its URL must be a host and a port alone, such as https://192.0.2.1:8443"


def test_hosts_that_are_not_utf_8_are_a_fault() -> None:
    (fault,) = faults(None, LXD_MULTI_HOSTS='["\udcff"]')
    assert fault.startswith("LXD_MULTI_HOSTS: is not JSON: ")


def test_a_certificate_that_openssl_finds_too_weak_is_a_fault(entry: dict[str, Any], tmp_path: Path) -> None:
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:1024",
            "-nodes",
            "-subj",
            "/CN=weak",
            "-keyout",
            str(tmp_path / "weak.key"),
            "-out",
            str(tmp_path / "weak.crt"),
        ],
        check=True,
        capture_output=True,
    )
    weak = {"client_cert": str(tmp_path / "weak.crt"), "client_key": str(tmp_path / "weak.key")}
    (fault,) = faults([entry | weak])
    assert "OpenSSL refuses it: ee key too small" in fault


def test_a_key_that_others_can_read_is_a_fault_unless_that_is_allowed(
    entry: dict[str, Any], pair: KeyPair, tmp_path: Path
) -> None:
    certificate, key = pair.write(tmp_path, "exposed")
    key.chmod(0o644)
    mine = entry | {"client_cert": str(certificate), "client_key": str(key)}
    hosts = [mine, mine | {"host": "node-2"}]
    (found,) = faults(hosts)
    assert found.startswith(f"LXD_MULTI_HOSTS[0].client_key: {key}: mode 0644, ")
    config = configure(hosts, LXD_MULTI_SCHEDULER_ALLOW_EXPOSED_KEYS="true")
    assert [warning.startswith(f"{key}: mode 0644, ") for warning in warnings(config)] == [True]
    key.chmod(0o600)
    assert warnings(configure(hosts)) == []


@pytest.mark.parametrize(("word", "truth"), [("true", True), ("YES", True), ("1", True), ("no", False), (" 0 ", False)])
def test_whether_it_is_allowed_is_said_in_words(
    word: str, truth: bool, entry: dict[str, Any], pair: KeyPair, tmp_path: Path
) -> None:
    _, key = pair.write(tmp_path, "exposed")
    key.chmod(0o644)
    given: dict[str, Any] = {"LXD_MULTI_SCHEDULER_ALLOW_EXPOSED_KEYS": word}
    hosts = [entry | {"client_key": str(key)}]
    assert bool(warnings(configure(hosts, **given)) if truth else faults(hosts, **given))
    assert faults([entry], LXD_MULTI_SCHEDULER_ALLOW_EXPOSED_KEYS="2") == [
        "LXD_MULTI_SCHEDULER_ALLOW_EXPOSED_KEYS: is '2', neither true nor false"
    ]


def test_a_key_may_belong_to_the_user_as_whom_the_daemon_will_run(
    entry: dict[str, Any], pair: KeyPair, tmp_path: Path
) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    _, key = pair.write(tmp_path, "given")
    os.chown(key, 4711, -1)
    given = {"LXD_MULTI_HOSTS": json.dumps([entry | {"client_key": str(key)}])}
    assert warnings(load(Sources({}, given, user=4711), ["least-allocated"])) == []
    (found,) = faults([entry | {"client_key": str(key)}])
    assert "neither to root" in found


def test_keys_may_be_credentials_that_systemd_keeps(entry: dict[str, Any], pair: KeyPair, tmp_path: Path) -> None:
    pair.write(tmp_path, "client")
    mine = {"host": "node-1", "client_cert": "credential:client.crt", "client_key": "credential:client.key"}
    (host,) = configure([mine], CREDENTIALS_DIRECTORY=str(tmp_path)).hosts
    assert host.identity.fingerprint == pair.fingerprint
    assert [each.partition(": ")[0] for each in faults([mine])] == [
        "LXD_MULTI_HOSTS[0].client_cert",
        "LXD_MULTI_HOSTS[0].client_key",
    ]


def test_the_fault_of_a_default_is_said_of_it_and_once(entry: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "lxdsched.toml"
    file.write_text('client_key = "/missing"\n')
    hosts = [{"host": name, "client_cert": entry["client_cert"]} for name in ("node-1", "node-2")]
    assert faults(hosts, file=file) == [f"{file}: client_key: /missing: No such file or directory"]
    assert faults(hosts, LXD_MULTI_SCHEDULER_CLIENT_KEY="/missing") == [
        "LXD_MULTI_SCHEDULER_CLIENT_KEY: /missing: No such file or directory"
    ]


def test_a_key_in_place_of_its_files_name_is_not_shown(entry: dict[str, Any], pair: KeyPair) -> None:
    assert faults([entry | {"client_key": pair.key_pem.decode()}]) == [
        "LXD_MULTI_HOSTS[0].client_key: holds what should be in a file, not the name of one"
    ]


def test_nothing_that_is_shown_of_a_host_has_a_key_in_it(entry: dict[str, Any], pair: KeyPair) -> None:
    shown = repr(configure([entry]))
    number = pair.key.private_numbers().private_value
    assert [each for each in (str(number), f"{number:x}", "PRIVATE KEY") if each in shown] == []


def test_a_certificate_that_has_ended_is_no_fault(entry: dict[str, Any], tmp_path: Path) -> None:
    now = datetime.now(UTC)
    old = make_certificate("old", now=now, not_before=now - timedelta(days=9), not_after=now - timedelta(days=1))
    certificate, key = old.write(tmp_path, "old")
    config = configure([entry | {"client_cert": str(certificate), "client_key": str(key), "ca": str(certificate)}])
    assert [(each.use, each.file, each.state(now)) for each in config.certificates] == [
        ("client_cert", str(certificate), "ended"),
        ("ca", str(certificate), "ended"),
    ]


def test_the_certificates_that_end_are_told_with_the_hosts_that_they_are_for(
    entry: dict[str, Any], paths: tuple[str, str], pair: KeyPair
) -> None:
    hosts = [
        entry | {"server_cert": paths[0]},
        entry | {"host": "node-2", "ca": paths[0]},
        entry | {"host": "node-3", "ca": paths[0]},
    ]
    redis: dict[str, Any] = {
        f"LXD_MULTI_SCHEDULER_REDIS_{name}": paths[name == "KEY"] for name in ("CA", "CERT", "KEY")
    }
    config = configure(hosts, **redis, LXD_MULTI_SCHEDULER_REDIS_URL="rediss://a")
    names = tuple(host["host"] for host in hosts)
    assert [(each.use, each.hosts) for each in config.certificates] == [
        ("client_cert", names),
        ("ca", names[1:]),
        ("redis_ca", ()),
        ("redis_cert", ()),
    ]
    assert {(each.file, each.fingerprint) for each in config.certificates} == {(paths[0], pair.fingerprint)}


@pytest.mark.parametrize("key", ["ca", "server_cert"])
def test_whom_to_take_for_a_host_is_not_written_by_others(
    entry: dict[str, Any], pair: KeyPair, tmp_path: Path, key: str
) -> None:
    certificate, _ = pair.write(tmp_path, "server")
    certificate.chmod(0o646)
    (fault,) = faults([entry | {key: str(certificate)}])
    assert fault.startswith(f"LXD_MULTI_HOSTS[0].{key}: {certificate}: mode 0646, owner ")
    assert fault.endswith(f": others can change it: chmod go-w {certificate}")


def test_the_file_itself_is_not_written_by_others(entry: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "lxdsched.toml"
    file.write_text("port = 8081\n")
    file.chmod(0o646)
    (fault,) = faults([entry], file=file)
    assert fault.startswith(f"{file}: mode 0646, owner ")
    config = configure([entry], file=file, LXD_MULTI_SCHEDULER_ALLOW_EXPOSED_KEYS="true")
    assert config.listening.endpoint.startswith("tcp:8081")
