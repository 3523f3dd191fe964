"""Where settings come from, and how every fault in them is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lxdsched.config import SETTINGS, ConfigError
from lxdsched.sandbox.certs import KeyPair
from lxdsched.tls import Authority, Pinned
from tests.unit.conftest import configure, faults

GIB = 1024**3


def test_the_servers_own_json_is_enough(entry: dict[str, Any], pair: KeyPair) -> None:
    config = configure([entry])
    (host,) = config.hosts
    assert (host.host, host.url) == ("https://192.0.2.1:8443", "https://192.0.2.1:8443")
    assert host.identity.fingerprint == pair.fingerprint
    assert host.trust is None
    assert config.listening.endpoint == "tcp:8080:interface=127.0.0.1"
    assert config.strategy == "least-allocated"


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
    assert config.listening.endpoint == "tcp6:3333:interface=\\:\\:"
    assert config.strategy == "balanced"


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
    assert configure([entry], LXD_MULTI_SCHEDULER_PORT="", LXD_MULTI_LOG_LEVEL=" ").listening.endpoint.startswith(
        "tcp:8080:"
    )


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


def test_a_variable_that_looks_like_ours_and_is_not_is_a_warning(entry: dict[str, Any]) -> None:
    pinned = entry | {"fingerprint": "ab" * 32}
    config = configure([pinned], LXD_MULTI_SCHEDULER_PROT="1", LXD_MULTI_SCHEDULER_ADDRESS="2")
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
