"""How hosts are configured, and how every fault in them is found."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lxdsched.config.hosts import address
from lxdsched.config.values import Fault
from lxdsched.sandbox.certs import make_certificate
from tests.unit.conftest import configure, faults


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
