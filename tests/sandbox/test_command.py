"""The program as a shell sees it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

PROGRAM = [
    sys.executable,
    "-c",
    "import sys; from lxdsched.sandbox.command import main; sys.exit(main(sys.argv[1:]))",
]
ROOT = Path(__file__).parents[2]


def environment(temporary: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}


def run(temporary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment(temporary)
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_alone_it_prints_one_line_for_a_shell_and_serves_until_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*PROGRAM, "--hosts", "2"], stdout=subprocess.PIPE, text=True, env=environment(tmp_path)
    ) as program:
        assert program.stdout is not None
        name, _, value = program.stdout.readline().partition("=")
        (text,) = shlex.split(value)
        hosts = json.loads(text)
        assert name == "LXD_MULTI_HOSTS"
        assert len(hosts) == 2
        for host in hosts:
            address = urlsplit(host["host"])
            socket.create_connection((address.hostname, address.port), timeout=5).close()
            assert Path(host["client_key"]).stat().st_mode & 0o777 == 0o600
        program.send_signal(number)
        assert program.stdout.read() == ""
        assert program.wait(30) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_around_a_command_it_ends_as_the_command_ends(tmp_path: Path, script: str, status: int) -> None:
    done = run(tmp_path, "--hosts", "1", "--", "sh", "-c", f'echo "$LXD_MULTI_HOSTS"; {script}')
    assert done.returncode == status
    assert json.loads(done.stdout)[0]["host"].startswith("https://127.0.0.1:")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_is_passed_on_to_the_command(tmp_path: Path) -> None:
    script = 'trap "exit 3" TERM; kill -TERM $PPID; while :; do sleep 0.05; done'
    assert run(tmp_path, "--hosts", "1", "--", "sh", "-c", script).returncode == 3


def test_the_command_reads_and_writes_our_own_streams(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "--hosts", "1", "--", "cat", "--", "-"],
        input="hello",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(tmp_path),
    )
    assert (done.returncode, done.stdout) == (0, "hello")


def test_a_given_directory_is_made_and_kept(tmp_path: Path) -> None:
    directory = tmp_path / "given" / "deep"
    assert run(tmp_path, "--hosts", "1", "--directory", str(directory), "--", "true").returncode == 0
    assert sorted(path.name for path in directory.iterdir()) == ["client.crt", "client.key"]


def test_what_is_printed_can_be_used_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "--hosts", "1", "--directory", "given", "--", "sh", "-c", 'echo "$LXD_MULTI_HOSTS"'],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
        env=environment(tmp_path),
    )
    (host,) = json.loads(done.stdout)
    assert [host["client_cert"], host["client_key"]] == [f"{tmp_path}/given/client.{kind}" for kind in ("crt", "key")]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--hosts", "0"], 2, "'0' is no number from 1 to 10000"),
        (["--hosts", "x"], 2, "'x' is no number from 1 to 10000"),
        (["--"], 2, "--"),
        (["--zork"], 2, "unrecognized arguments: --zork"),
        (["--address", "203.0.113.1"], 1, "cannot listen on 203.0.113.1"),
        (["--directory", "/proc/nope"], 1, "/proc/nope"),
        (["--", "/no/such/command"], 127, "no such command: /no/such/command"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(tmp_path: Path, arguments: list[str], status: int, sentence: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == status
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
