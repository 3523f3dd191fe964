"""Configurations that nobody meant to write."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.config import SETTINGS, ConfigError, Sources, load
from lxdsched.config.hosts import host_name
from lxdsched.config.values import Fault
from lxdsched.sandbox.certs import make_certificate
from lxdsched.smallfiles import MOST_BYTES
from tests.fuzz import oracles
from tests.fuzz.grown import ODD, anything, grown, write

SECRET = "hunter2hunter2"

VALUES = [
    "true",
    "0",
    "-1",
    "+0",
    "0x" + "f" * 10_000,
    "9" * 5000,
    "1e308",
    "1e400",
    "-0.0",
    "nan",
    "inf",
    "0.0000001",
    "1979-05-27",
    "07:32:00",
    '""',
    '"\\u0000"',
    '"\\uD7FF\\u202e\\u0085"',
    "'''\na\n'''",
    '"' + "a" * 100_000 + '"',
    '"' + "é" * 100_000 + '"',
    '"' + "9" * 5000 + '"',
    '"0E+99999999999999"',
    '"1E-99999999999999"',
    '"sNaN"',
    '"1_000"',
    '"::1%\\n"',
    "[]",
    '[""]',
    "[[], {}]",
    "[" * 150 + "]" * 150,
    "{}",
    "{ a.b.c = 1 }",
    "{ a" + ".a" * 90 + " = " + "{ a" + ".a" * 90 + " = 1 } }",
    "[" + '"a",' * 10_000 + "]",
    "[" + "0," * 10_000 + "]",
    "[" + '{ host = "x", a = 1 },' * 5000 + "]",
]

environment_text = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
)
url_pieces = st.sampled_from(
    [
        "https://",
        "redis://",
        "rediss+sentinel://",
        "unix:",
        "unix://",
        "://",
        "/",
        "@",
        ":",
        "?",
        "#",
        "%",
        "%00",
        "%ff",
        "[",
        "]",
        "[::1]",
        "[::1%eth0]",
        "192.0.2.1",
        "node-1",
        ":8443",
        ":0",
        ":" + "9" * 5000,
        "/0",
        "?db=",
        ",",
        "\n",
        "\t",
        " ",
        "\0",
        "\udcff",
        "é",
        "ß" * 70,
        "٣",
        "." * 300,
        "a" * 300,
        "xn--" + "a" * 70,
        "xn--\u0130",
    ]
)
url_text = st.lists(url_pieces, max_size=10).map("".join) | environment_text


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "lxdsched.toml"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pair = make_certificate("client", now=datetime.now(UTC))
    certificate, key = pair.write(tmp_path_factory.mktemp("pair"), "client")
    paths = {"client_cert": str(certificate), "client_key": str(key)}
    more = {"over_commit_percent": 100, "reserve_memory": "1GiB", "labels": {"rack": "a"}}
    return {"host": "https://192.0.2.1:8443", "fingerprint": pair.fingerprint} | paths | more


@given(content=st.binary(max_size=1000) | st.text().map(str.encode))
def test_any_file(content: bytes, file: Path) -> None:
    oracles.toml(content, file)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_odd_value_of_every_setting(setting: Any, file: Path) -> None:
    with oracles.cpu_seconds():
        for value in VALUES:
            oracles.toml(f"{setting.name} = {value}\n".encode(), file)
        for key in (f"{setting.name}.a", f"[{setting.name}]\na", f"[[{setting.name}]]\na"):
            oracles.toml(f"{key} = 1\n".encode(), file)


texts = (
    environment_text | url_text | anything.map(json.dumps) | st.sampled_from(VALUES).map(lambda value: value.strip('"'))
)


@given(
    st.dictionaries(st.sampled_from(range(len(SETTINGS))), texts.map(lambda text: text.replace("\0", "")), min_size=1)
)
def test_any_text_in_any_variable_or_option(chosen: dict[int, str]) -> None:
    oracles.configuration(Sources(environment={SETTINGS[number].variable: text for number, text in chosen.items()}))
    oracles.configuration(Sources(options={SETTINGS[number].option: text for number, text in chosen.items()}))


@given(content=st.data())
def test_any_value_in_any_place_of_the_hosts(content: st.DataObject, host: dict[str, Any]) -> None:
    said = content.draw(grown([host, "node-2", host | {"host": "node-3:9443"}])).decode("utf-8", "surrogateescape")
    oracles.configuration(Sources(environment={"LXD_MULTI_HOSTS": said}))


@given(names=st.lists(environment_text, max_size=4))
def test_any_name_of_a_variable_that_is_no_setting(names: list[str], host: dict[str, Any]) -> None:
    strays = {f"LXD_MULTI_SCHEDULER_{name}_": "x" for name in names}
    config = oracles.configuration(Sources(environment=strays | {"LXD_MULTI_HOSTS": json.dumps([host])}))
    assert config is not None
    assert len(config.warnings) == len(strays)
    assert all(each.isprintable() and len(each) < oracles.MOST_SAID for each in config.warnings)


def test_every_odd_value_in_every_place_of_a_host(host: dict[str, Any]) -> None:
    assert oracles.configuration(Sources(environment={"LXD_MULTI_HOSTS": json.dumps([host])})) is not None
    with oracles.cpu_seconds():
        for odd in ODD:
            for key in [*host, "ca", "server_cert", "stranger"]:
                entry = host | {key: odd}
                if key in {"ca", "server_cert"}:
                    del entry["fingerprint"]
                oracles.configuration(Sources(environment={"LXD_MULTI_HOSTS": write([entry])}))


def test_every_odd_value_in_every_place_of_a_host_in_the_file(host: dict[str, Any], file: Path) -> None:
    with oracles.cpu_seconds():
        for value in VALUES:
            for key in [*host, "ca", "stranger"]:
                others = [f"{name} = {json.dumps(each)}" for name, each in host.items() if name not in {key, "labels"}]
                oracles.toml("\n".join(["[[hosts]]", *others, f"{key} = {value}"]).encode(), file)


@given(url_text)
def test_any_text_as_a_url(text: str) -> None:
    oracles.urls(text)
    for variable in ("LXD_MULTI_SCHEDULER_REDIS_URL", "REDIS_ADDR"):
        oracles.configuration(Sources(environment={variable: text.replace("\0", "")}))


@pytest.mark.parametrize("unit", ["a.", "é", "é.", "[", ":", "%", "@", "/", ",", "xn--a.", "\u0130"])
def test_a_url_of_any_length_costs_little(unit: str) -> None:
    with oracles.cpu_seconds():
        for prefix in ("", "https://", "redis://", "unix://"):
            oracles.urls(prefix + unit * 50_000)


@given(
    url_text,
    url_text,
    st.sampled_from(["redis://", "rediss://", "redis+sentinel://", "unix://", "https://", "redis:/"]),
)
def test_no_fault_shows_the_password_of_a_url(before: str, after: str, scheme: str) -> None:
    url = f"{scheme}user:{SECRET}{before}@{after}".replace("\0", "")
    for variable in ("LXD_MULTI_SCHEDULER_REDIS_URL", "REDIS_ADDR"):
        oracles.configuration(Sources(environment={variable: url}), SECRET)
    hosts = {"LXD_MULTI_HOSTS": json.dumps([url])}
    oracles.configuration(Sources(environment=hosts), SECRET)


@pytest.mark.parametrize(
    "name", ["client_key", "client_cert", "redis_key", "redis_password_file", "redis_sentinel_password_file"]
)
def test_no_fault_shows_what_was_set_in_place_of_its_path(name: str, file: Path, host: dict[str, Any]) -> None:
    contents = ["-----BEGIN PRIVATE KEY-----\n" + SECRET + "\n-----END PRIVATE KEY-----", f"-----BEGIN {SECRET}"]
    if "password" in name:
        contents = [SECRET, SECRET + "/", SECRET + "\n"]
    for content in contents:
        base = f'redis_url = "rediss+sentinel://node-1/x"\nredis_cert = "{host["client_cert"]}"\n'
        others = "" if name == "client_key" else f'client_key = "{host["client_key"]}"\n'
        others += "" if name == "client_cert" else f'client_cert = "{host["client_cert"]}"\n'
        said = f'{base}{others}hosts = ["node-1"]\n{name} = {json.dumps(content)}\n'
        assert oracles.toml(said.encode(), file, SECRET) is None


def test_a_file_without_end_is_a_fault() -> None:
    for path in ("/dev/zero", "/dev/null", "/proc/self/mem", "/", "\0", "a" * 5000):
        oracles.configuration(Sources(file=path))
        oracles.configuration(Sources(environment={"LXD_MULTI_SCHEDULER_REDIS_PASSWORD_FILE": path}))
        hosts = json.dumps([{"host": "a", "client_cert": path, "client_key": path}])
        assert oracles.configuration(Sources(environment={"LXD_MULTI_HOSTS": hosts})) is None


@pytest.mark.parametrize(
    "unit",
    [
        "a.",
        '"a".',
        "'a' . ",
        "[a.b]\n",
        "a{}=1\n",
        "[",
        "[[",
        "{",
        '"',
        "'",
        '"""',
        "'''",
        "#",
        "\\",
        "a=1\n",
        "a.b{}.c=1\n",
        "\r",
        "1,",
        "é",
    ],
)
@pytest.mark.parametrize("prefix", ["", "a=", "hosts=[", "[", 'a="', "a='''"])
def test_a_file_full_of_one_thing_costs_little(prefix: str, unit: str, file: Path) -> None:
    units = (unit.format(number) if "{}" in unit else unit for number in range(MOST_BYTES // (8 * len(unit))))
    with oracles.cpu_seconds():
        oracles.toml((prefix + "".join(units)).encode(), file)


@pytest.mark.parametrize("part", ["a.", '"a".', "'a' . ", '"#\\"".'])
def test_a_key_of_thousands_of_parts_is_not_even_tried(part: str, file: Path) -> None:
    file.write_text(f"port = 1\n{part * 10_000}a = 1\n")
    with pytest.raises(ConfigError) as caught:
        load(Sources(file=str(file)), oracles.STRATEGIES)
    assert caught.value.faults[0] == f"{file}: not a TOML file: a key of more than 100 parts (at line 2)"


def test_of_thousands_of_faults_some_are_shown(file: Path) -> None:
    file.write_text("hosts = [" + '{ host = "x", a = 1, b = 2 },' * 5000 + "]\n")
    with pytest.raises(ConfigError) as caught:
        load(Sources(file=str(file)), oracles.STRATEGIES)
    assert len(caught.value.faults) == 101
    assert caught.value.faults[-1] == "and 19900 more"


def test_a_name_longer_than_any_in_dns_is_no_name() -> None:
    assert host_name("a." * 127) == "a." * 127
    with pytest.raises(Fault, match="a name that no host can have"):
        host_name("a." * 128)


def test_a_certificate_file_of_anything_is_a_fault(file: Path, host: dict[str, Any]) -> None:
    pem = Path(host["client_cert"]).read_bytes()
    der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    for place in range(0, len(der), 7):
        changed = base64.encodebytes(der[:place] + bytes([der[place] ^ 0x55]) + der[place + 1 :])
        file.write_bytes(b"-----BEGIN CERTIFICATE-----\n" + changed + b"-----END CERTIFICATE-----\n")
        for key in ("client_cert", "ca", "server_cert"):
            entry = {name: value for name, value in host.items() if name != "fingerprint"} | {key: str(file)}
            oracles.configuration(Sources(environment={"LXD_MULTI_HOSTS": json.dumps([entry])}))
