"""The Debian package says what the daemon does: its configuration, its units, its manual pages, its version."""

from __future__ import annotations

import re
import runpy
import subprocess
import tomllib
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lxdsched import __version__, cli
from lxdsched.access.keys import digest, new_id, new_key
from lxdsched.config import SETTINGS, ConfigError, Sources, load
from lxdsched.config.files import CREDENTIALS_VARIABLE
from lxdsched.config.load import CONFIG_VARIABLE
from lxdsched.plugins import strategies
from lxdsched.sandbox.certs import KeyPair
from lxdsched.tap import FAULTY, OPEN_FILES
from tests.support import write_secret

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "debian"
PACKAGED = (DEBIAN / "etc" / "lxdsched.toml").read_text()
UNCOMMENTED = re.sub(r"^( *)#([a-z{])", r"\1\2", PACKAGED, flags=re.MULTILINE)
DEFAULTS: dict[str, Any] = {setting.name: setting.default for setting in SETTINGS}

COMMANDS = (
    ["check"],
    ["health"],
    ["key", "new"],
    ["key", "list"],
    ["key", "revoke"],
    ["trust", "list"],
    ["trust", "accept"],
    ["trust", "forget"],
    ["sandbox"],
)


def unit(name: str) -> dict[str, list[str]]:
    """Read a unit: every value of every key."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in (DEBIAN / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[key].append(value)
    return found


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text.removesuffix("s"))


def helped(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with suppress(SystemExit):
        cli.main([*words, "--help"])
    return capsys.readouterr().out


def options(words: list[str], capsys: pytest.CaptureFixture[str]) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]+", helped(words, capsys))) - {"--help"}


def plain(page: str) -> str:
    """Return what a manual page shows, more or less."""
    return page.replace("\\-", "-")


def installed(directory: Path, text: str, pair: KeyPair) -> Sources:
    """Put a configuration and what it names where the package would have it, below `directory`."""
    certificate, key = pair.write(directory, "client")
    certificate.rename(directory / "client.crt")
    for name in ("keys_client.key", "server.key"):
        write_secret(directory / name, pair.key_pem)
    key.unlink()
    (directory / "server.crt").write_bytes(pair.cert_pem)
    write_secret(directory / "keys_redis.password", "secret\n")
    number = new_id()
    entry = f'{{id = "{number}", sha256 = "{digest(new_key(number)).hex()}", created = 2026-11-26T10:00:00Z}}'
    write_secret(directory / "clients.toml", f'[shoes-1]\nrights = ["schedule"]\nkeys = [{entry}]\n')
    file = directory / "lxdsched.toml"
    file.write_text(text.replace("/etc/lxdsched", str(directory)))
    return Sources({}, {CREDENTIALS_VARIABLE: str(directory)}, str(file))


def test_the_packaged_configuration_lacks_nothing_but_hosts(tmp_path: Path, pair: KeyPair) -> None:
    sources = installed(tmp_path, PACKAGED, pair)
    with pytest.raises(ConfigError) as caught:
        load(sources, strategies())
    assert caught.value.faults == [f"{tmp_path}/lxdsched.toml: hosts: names no host"]


def test_the_packaged_configuration_is_good_with_all_of_its_examples(tmp_path: Path, pair: KeyPair) -> None:
    config = load(installed(tmp_path, UNCOMMENTED, pair), strategies())
    assert len(config.hosts) == 2
    assert (config.guard.tls is None, config.guard.clients is None, config.redis is None) == (False, False, False)


@pytest.mark.parametrize("name", ["over_commit_percent", "port", "interface", "strategy"])
def test_what_the_packaged_configuration_shows_as_default_is_the_default(name: str) -> None:
    assert tomllib.loads(UNCOMMENTED)[name] == DEFAULTS[name]


def test_the_version_of_the_package_is_that_of_the_daemon() -> None:
    first = (DEBIAN / "changelog").read_text().splitlines()[0]
    said = subprocess.run([DEBIAN / "version"], capture_output=True, text=True, check=True).stdout.strip()
    assert first.split()[:2] == ["lxdsched", f"({said})"]
    assert said.replace("~", "") == __version__.replace(".dev", "dev")


def test_a_version_before_a_release_is_older_than_that_for_debian_too(tmp_path: Path) -> None:
    for name in ("debian", "lxdsched"):
        (tmp_path / name).mkdir()
    script = tmp_path / "debian" / "version"
    script.write_bytes((DEBIAN / "version").read_bytes())
    script.chmod(0o755)
    for version, debian in (("1.0.0", "1.0.0"), ("1.0.0rc1", "1.0.0~rc1"), ("1.0.0.dev3", "1.0.0~dev3")):
        (tmp_path / "lxdsched" / "__init__.py").write_text(f'__version__ = "{version}"\n')
        assert subprocess.run([script], capture_output=True, text=True, check=True).stdout.strip() == debian


def test_the_unit_runs_the_daemon_on_the_packaged_configuration() -> None:
    service = unit("lxdsched.service")
    assert service["Environment"] == [f"{CONFIG_VARIABLE}=/etc/lxdsched/lxdsched.toml"]
    assert "debian/etc/lxdsched.toml etc/lxdsched\n" in (DEBIAN / "lxdsched.install").read_text()
    assert service["ExecStart"] == ["/usr/lib/lxdsched/bin/twistd --nodaemon --pidfile= lxdsched"]
    assert f"u {service['User'][0]} " in (DEBIAN / "lxdsched.sysusers").read_text()


def test_the_variables_in_the_packaged_environment_are_known() -> None:
    text = (DEBIAN / "lxdsched.default").read_text()
    assert set(re.findall(r"^#(LXD_\w+)=", text, re.MULTILINE)) <= {setting.variable for setting in SETTINGS}


def test_the_unit_hands_over_the_keys_that_the_packaged_configuration_names() -> None:
    (loaded,) = unit("lxdsched.service")["LoadCredential"]
    name, _, directory = loaded.partition(":")
    assert f"{directory.removeprefix('/')}\n" in (DEBIAN / "lxdsched.dirs").read_text()
    named = re.findall(r"credential:(\w+?)_[\w.]+", UNCOMMENTED)
    assert set(named) == {name}


def test_the_unit_gives_the_daemon_the_time_and_the_files_that_it_takes() -> None:
    service = unit("lxdsched.service")
    assert seconds(service["TimeoutStopSec"][0]) > DEFAULTS["stop_timeout"]
    assert seconds(service["TimeoutStartSec"][0]) > 2 * DEFAULTS["host_timeout"]
    assert int(service["LimitNOFILE"][0]) >= OPEN_FILES


def test_the_unit_does_not_start_again_what_has_a_faulty_configuration() -> None:
    assert unit("lxdsched.service")["RestartPreventExitStatus"] == [str(FAULTY)]
    assert f".B {FAULTY}\n" in (DEBIAN / "lxdsched.8").read_text()


def test_the_socket_listens_where_the_daemon_would() -> None:
    assert unit("lxdsched.socket")["ListenStream"] == [f"{DEFAULTS['interface']}:{DEFAULTS['port']}"]


def test_the_manual_has_every_setting_with_its_variable_option_and_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runpy.run_path(str(DEBIAN / "manual"), run_name="__main__")
    page = plain(capsys.readouterr().out)
    for setting in SETTINGS:
        assert f'.B "{setting.name}"\n' in page
        assert f".BR {setting.variable} ,\noption\n.BR --{setting.option} ,\ndefault\n" in page
        assert f"\n.BR {setting.shown_default} ." in page


def test_the_commands_named_here_are_all_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    def listed(words: list[str]) -> set[str]:
        return set(re.findall(r"^    ([a-z]+) ", helped(words, capsys), re.MULTILINE))

    assert listed([]) == {words[0] for words in COMMANDS}
    for group in ("key", "trust"):
        assert listed([group]) == {words[1] for words in COMMANDS if words[0] == group}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_manual_has_every_command_with_its_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    page = plain((DEBIAN / "lxdsched.1").read_text())
    synopsis = re.split(r"\n\.br\n|\n\.SH DESCRIPTION\n", page)
    (said,) = [each for each in synopsis if re.search(rf"^\.B lxdsched {' '.join(words)}$", each, re.MULTILINE)]
    assert options(words, capsys) - set(re.findall(r"--[a-z-]+", said)) == set()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_bash_completes_every_command_and_its_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def completed(before: list[str]) -> set[str]:
        script = 'source "$1"; shift; COMP_WORDS=("$@" ""); COMP_CWORD=$#; _lxdsched; printf "%s\\n" "${COMPREPLY[@]}"'
        command = ["bash", "-c", script, "bash", str(DEBIAN / "completions" / "lxdsched"), "lxdsched", *before]
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())

    for number, word in enumerate(words):
        assert word in completed(words[:number])
    assert options(words, capsys) - completed(words) == set()
