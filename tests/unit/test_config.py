"""Where settings come from, and how every fault in them is found."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lxdsched.config import SETTINGS, Config, ConfigError, Sources, load
from lxdsched.config.hosts import address
from lxdsched.config.values import Fault
from lxdsched.fleet.tls import Authority, Pinned
from lxdsched.sandbox.certs import KeyPair, make_certificate

STRATEGIES = ("least-allocated", "balanced")
GIB = 1024**3


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return make_certificate("client", now=datetime.now(UTC))


@pytest.fixture(scope="module")
def paths(pair: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    certificate, key = pair.write(tmp_path_factory.mktemp("pair"), "client")
    return str(certificate), str(key)


@pytest.fixture
def entry(paths: tuple[str, str]) -> dict[str, Any]:
    return {"host": "https://192.0.2.1:8443", "client_cert": paths[0], "client_key": paths[1]}


def configure(
    hosts: object,
    *,
    options: Mapping[str, str] | None = None,
    file: Path | None = None,
    **environment: str,
) -> Config:
    given = {} if hosts is None else {"LXD_MULTI_HOSTS": json.dumps(hosts)}
    return load(Sources(options or {}, given | environment, str(file) if file else None), STRATEGIES)


def faults(hosts: object, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configure(hosts, **more)
    return caught.value.faults


def test_the_servers_own_json_is_enough(entry: dict[str, Any], pair: KeyPair) -> None:
    config = configure([entry])
    (host,) = config.hosts
    assert (host.host, host.url) == ("https://192.0.2.1:8443", "https://192.0.2.1:8443")
    assert host.identity.fingerprint == pair.fingerprint
    assert host.trust is None
    assert (config.port, config.interface, config.strategy) == (8080, "127.0.0.1", "least-allocated")


def test_plain_strings_use_the_default_pair(paths: tuple[str, str], entry: dict[str, Any]) -> None:
    config = configure(
        ["node-1", entry], LXD_MULTI_SCHEDULER_CLIENT_CERT=paths[0], LXD_MULTI_SCHEDULER_CLIENT_KEY=paths[1]
    )
    assert [(host.host, host.url) for host in config.hosts] == [
        ("node-1", "https://node-1:8443"),
        ("https://192.0.2.1:8443", "https://192.0.2.1:8443"),
    ]
    assert config.hosts[0].identity is config.hosts[1].identity


def test_an_option_wins_over_the_environment_and_that_over_the_file(tmp_path: Path, entry: dict[str, Any]) -> None:
    file = tmp_path / "lxdsched.toml"
    file.write_text('port = 1111\ninterface = "::1"\nstrategy = "balanced"\n')
    config = configure(
        [entry],
        file=file,
        options={"port": "3333"},
        LXD_MULTI_SCHEDULER_PORT="2222",
        LXD_MULTI_SCHEDULER_INTERFACE="::",
    )
    assert (config.port, config.interface, config.strategy) == (3333, "::", "balanced")


def test_the_file_may_hold_everything(tmp_path: Path, paths: tuple[str, str], pair: KeyPair) -> None:
    file = tmp_path / "lxdsched.toml"
    file.write_text(
        f"""
        client_cert = "{paths[0]}"
        client_key = "{paths[1]}"
        over_commit_percent = 150
        reserve_memory = "2GiB"
        unlimited_cpu = 0.5
        exempt_statuses = ["Frozen", "Stopped"]
        allow_strategies = ["balanced"]
        host_timeout = 3
        log_level = "debug"

        [[hosts]]
        host = "node-1"
        fingerprint = "{pair.fingerprint.upper()}"
        over_commit_percent = 200

        [[hosts]]
        host = "node-2:9443"
        ca = "{paths[0]}"
        reserve_memory = 5
        labels = {{ rack = "a" }}

        [[hosts]]
        host = "https://[2001:db8::1]:8443"
        server_cert = "{paths[0]}"
        """
    )
    config = configure(None, LXD_MULTI_SCHEDULER_CONFIG=str(file))
    first, second, third = config.hosts
    assert (first.over_commit_percent, first.reserve_memory) == (200, 2 * GIB)
    assert (second.over_commit_percent, second.reserve_memory, second.labels) == (150, 5, {"rack": "a"})
    assert first.trust == Pinned(frozenset({pair.fingerprint})) == third.trust
    assert isinstance(second.trust, Authority)
    assert (second.url, third.url) == ("https://node-2:9443", "https://[2001:db8::1]:8443")
    assert config.counting.unlimited.cpu == 500
    assert config.counting.exempt == {"Frozen", "Stopped"}
    assert (config.patience.question, config.allow_strategies, config.log_level) == (3.0, ("balanced",), "DEBUG")


def test_an_empty_variable_is_not_set(entry: dict[str, Any]) -> None:
    assert configure([entry], LXD_MULTI_SCHEDULER_PORT="", LXD_MULTI_LOG_LEVEL=" ").port == 8080


def test_every_fault_is_found_at_once_and_names_its_key(tmp_path: Path, entry: dict[str, Any]) -> None:
    file = tmp_path / "lxdsched.toml"
    file.write_text('pot = 1\ninterface = "eth0"\n')
    hosts = [entry | {"client_key": "/nowhere/key.pem"}, {"host": "ftp://x", "client_cert": 7}, 9, {}]
    found = faults(
        hosts,
        file=file,
        options={"port": "eighty"},
        LXD_MULTI_OVER_COMMIT_PERCENT="0",
        LXD_MULTI_SCHEDULER_STRATEGY="best",
        LXD_MULTI_LOG_LEVEL="LOUD",
    )
    expected = [
        f"{file}: pot: is not a setting, did you mean port?",
        "--port: is 'eighty', not a whole number",
        f"{file}: interface: is 'eth0', not an IP address such as 127.0.0.1 or ::",
        "LXD_MULTI_OVER_COMMIT_PERCENT: is not between 1 and 10000",
        "LXD_MULTI_LOG_LEVEL: is 'LOUD', not one of DEBUG, INFO, WARN, ERROR",
        "LXD_MULTI_SCHEDULER_STRATEGY: 'best' is not a strategy; these are: balanced, least-allocated",
        "LXD_MULTI_HOSTS[0].client_key: /nowhere/key.pem: No such file or directory",
        "LXD_MULTI_HOSTS[1].host: 'ftp://x': LXD is reached over https only",
        "LXD_MULTI_HOSTS[1].client_cert: is missing, and no default client_cert is set",
        "LXD_MULTI_HOSTS[1].client_key: is missing, and no default client_key is set",
        "LXD_MULTI_HOSTS[2]: must be an object or a URL",
        "LXD_MULTI_HOSTS[3].host: must be the host's URL",
    ]
    assert found == expected


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


def test_files_that_hold_something_else_are_faults(entry: dict[str, Any], tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello")
    assert "holds no PEM certificate" in faults([entry | {"client_cert": str(text)}])[0]
    assert "the key is not a PEM private key" in faults([entry | {"client_key": str(text)}])[0]
    assert "holds no PEM certificate" in faults([entry | {"ca": str(text)}])[0]
    assert faults([entry], file=tmp_path / "missing.toml") == [f"{tmp_path}/missing.toml: No such file or directory"]
    text.write_text("port = ")
    assert f"{text}: not a TOML file: " in faults([entry], file=text)[0]
    text.write_bytes(b"\xff")
    assert f"{text}: not a TOML file: " in faults([entry], file=text)[0]


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
        "https://u:p@x",
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


def test_a_variable_that_looks_like_ours_and_is_not_is_a_warning(entry: dict[str, Any]) -> None:
    config = configure([entry], LXD_MULTI_SCHEDULER_PROT="1", LXD_MULTI_PORT="2")
    assert config.warnings == (
        "LXD_MULTI_SCHEDULER_PROT is not a setting of lxdsched, did you mean LXD_MULTI_SCHEDULER_PORT?; ignored",
    )


@pytest.mark.parametrize("value", ["--5", "-", "1" * 30, "1" * 5000, "٣", "1.0", "1e3"])
def test_a_number_that_is_none_is_a_fault(value: str, entry: dict[str, Any]) -> None:
    (fault,) = faults([entry], LXD_MULTI_SCHEDULER_PORT=value)
    assert fault.startswith("LXD_MULTI_SCHEDULER_PORT: is ")


@pytest.mark.parametrize("text", ["port = " + "1" * 5000, "host_timeout = 1" + "0" * 400, "x = " + "[" * 5000])
def test_a_file_beyond_reason_is_a_fault(text: str, entry: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "lxdsched.toml"
    file.write_text(text)
    assert all(str(file) in fault for fault in faults([entry], file=file))


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


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_no_setting_breaks_on_a_value_of_the_wrong_type(setting: Any, tmp_path: Path, entry: dict[str, Any]) -> None:
    file = tmp_path / "lxdsched.toml"
    for value in ("true", "[[1]]", "{ a = 1 }", "1979-05-27", "nan", "-1", '""', '"\\u0000"', "99999999999999999999"):
        file.write_text(f"{setting.name} = {value}")
        try:
            configure(None if setting.name == "hosts" else [entry], file=file)
        except ConfigError as error:
            assert all(str(file) in fault or setting.name in fault for fault in error.faults)


def test_every_setting_is_documented_with_its_variable() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    missing = [setting.name for setting in SETTINGS if f"`{setting.name}`" not in page or setting.variable not in page]
    assert missing == []
