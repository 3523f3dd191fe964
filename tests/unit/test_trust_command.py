"""`lxdsched trust`, as people and programs use it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lxdsched.sandbox.certs import make_certificate
from lxdsched.trust.certificates import describe
from lxdsched.trust.file import TrustFile
from lxdsched.trust.records import Known, Shown
from lxdsched.trust_command import main
from tests.e2e.daemon import LXDSCHED, clean_environment

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
OLD, NEW, OTHER = "ab" * 32, "cd" * 32, "ef" * 32
CHANGED = "https://node-1:8443"
SAME = "https://192.0.2.1:9443"
HOSTS = {
    CHANGED: Known(OLD, AT, "first_use", Shown(NEW, AT, "CN=root@node-1", ("node-1", "127.0.0.1"), AT, AT)),
    SAME: Known(OTHER, AT, "person"),
}

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> TrustFile:
    made = TrustFile(str(tmp_path))
    made.update(lambda _: HOSTS)
    return made


def said(file: TrustFile, capture: Capture, *arguments: str) -> str:
    """Run a sub-command that does what it is told; return what it prints."""
    status = main([arguments[0], "--state-directory", file.directory, *arguments[1:]], {})
    out, err = capture.readouterr()
    assert (status, err) == (0, "")
    return out


def refused(file: TrustFile, capture: Capture, *arguments: str) -> str:
    """Run a sub-command that cannot do what it is told; return what it says about that."""
    before = file.stamp()
    assert main([arguments[0], "--state-directory", file.directory, *arguments[1:]], {}) == 1
    assert file.stamp() == before
    return capture.readouterr().err


def test_every_host_is_listed_with_what_waits(file: TrustFile, capsys: Capture) -> None:
    assert said(file, capsys, "list") == (
        f"{SAME}\n"
        f"  trusted  {OTHER}\n"
        "           since 2026-05-01 12:00:00 UTC, accepted by a person\n"
        f"{CHANGED}\n"
        f"  trusted  {OLD}\n"
        "           since 2026-05-01 12:00:00 UTC, on first use\n"
        f"  REFUSED  {NEW}\n"
        "           shown first on 2026-05-01 12:00:00 UTC\n"
        "           it says of itself: CN=root@node-1\n"
        "           for node-1, 127.0.0.1\n"
        "           valid from 2026-05-01 to 2026-05-01\n"
        f"  to trust it: lxdsched trust accept {CHANGED}\n"
    )


def test_programs_are_told_the_same(file: TrustFile, capsys: Capture) -> None:
    same, changed = json.loads(said(file, capsys, "list", "--json"))
    assert same == {
        "host": SAME,
        "fingerprint": OTHER,
        "since": "2026-05-01T12:00:00Z",
        "by": "person",
        "offered": None,
    }
    assert changed["offered"] == {
        "fingerprint": NEW,
        "at": "2026-05-01T12:00:00Z",
        "subject": "CN=root@node-1",
        "names": ["node-1", "127.0.0.1"],
        "not_before": "2026-05-01T12:00:00Z",
        "not_after": "2026-05-01T12:00:00Z",
    }


def test_where_nothing_is_known_it_says_so(tmp_path: Path, capsys: Capture) -> None:
    empty = TrustFile(str(tmp_path / "new"))
    assert said(empty, capsys, "list") == f"no host is known in {tmp_path}/new/trust.json\n"
    assert said(empty, capsys, "list", "--json") == "[]\n"
    assert not (tmp_path / "new").exists()


def test_without_a_directory_it_says_how_to_name_one(capsys: Capture) -> None:
    assert main(["list"], {}) == 1
    assert capsys.readouterr().err == (
        "lxdsched trust: no state directory is set, so nothing is remembered: give the daemon's with "
        "--state-directory, LXD_MULTI_SCHEDULER_STATE_DIRECTORY or the file's state_directory "
        "(for a systemd service it is below /var/lib)\n"
    )


@pytest.mark.parametrize("by", ["environment", "file", "config", "systemd"])
def test_the_directory_is_found_where_the_daemon_finds_it(
    file: TrustFile, tmp_path: Path, by: str, capsys: Capture
) -> None:
    toml = tmp_path / "lxdsched.toml"
    toml.write_text(f'state_directory = "{file.directory}"\nhosts = 5\n')
    environment = {
        "environment": {"LXD_MULTI_SCHEDULER_STATE_DIRECTORY": file.directory, "LXD_MULTI_HOSTS": "nonsense"},
        "file": {"LXD_MULTI_SCHEDULER_CONFIG": str(toml)},
        "config": {},
        "systemd": {"STATE_DIRECTORY": file.directory},
    }[by]
    assert main(["list", *(["-c", str(toml)] if by == "config" else [])], environment) == 0
    assert CHANGED in capsys.readouterr().out


@pytest.mark.parametrize("name", ["node-1", "NODE-1", "node-1:8443", CHANGED, CHANGED + "/"])
def test_a_host_is_meant_by_each_of_its_names(file: TrustFile, name: str, capsys: Capture) -> None:
    text = said(file, capsys, "accept", name, "--fingerprint", NEW)
    assert OLD in text
    assert NEW in text
    known = (file.read() or {})[CHANGED]
    assert (known.fingerprint, known.by, known.offered) == (NEW, "person", None)
    assert known.since > AT


def test_a_name_without_its_port_will_do_where_it_is_clear(file: TrustFile, capsys: Capture) -> None:
    said(file, capsys, "forget", "192.0.2.1")
    assert SAME not in (file.read() or {})
    file.update(lambda _: {"https://n:1": HOSTS[SAME], "https://n:2": HOSTS[SAME]})
    text = refused(file, capsys, "forget", "n")
    assert text == "lxdsched trust: n may be any of these; say which:\n  https://n:1\n  https://n:2\n"


@pytest.mark.parametrize("command", ["accept", "forget"])
def test_a_host_that_is_not_known_is_told_with_those_that_are(file: TrustFile, command: str, capsys: Capture) -> None:
    expected = f"lxdsched trust: elsewhere is not known. These are:\n  {SAME}\n  {CHANGED}\n"
    assert refused(file, capsys, command, "elsewhere") == expected
    assert "'ftp://x': LXD is reached over https only" in refused(file, capsys, command, "ftp://x")


def test_only_what_waits_is_accepted(file: TrustFile, capsys: Capture) -> None:
    assert f"{OTHER} is not what {CHANGED} has shown" in refused(
        file, capsys, "accept", CHANGED, "--fingerprint", OTHER
    )
    assert "is not a SHA-256 fingerprint" in refused(file, capsys, "accept", CHANGED, "--fingerprint", "ab")
    assert f"{SAME} shows what is trusted" in refused(file, capsys, "accept", SAME)


def test_a_fingerprint_may_be_written_as_people_copy_it(file: TrustFile, capsys: Capture) -> None:
    said(file, capsys, "accept", CHANGED, "--fingerprint", ":".join(["CD"] * 32))
    assert (file.read() or {})[CHANGED].fingerprint == NEW


def test_to_accept_what_is_trusted_is_to_say_that_it_is_right(file: TrustFile, capsys: Capture) -> None:
    said(file, capsys, "accept", CHANGED, "--fingerprint", OLD)
    assert (file.read() or {})[CHANGED] == Known(OLD, AT, "person", HOSTS[CHANGED].offered)


def test_a_host_can_be_trusted_before_it_is_met(tmp_path: Path, capsys: Capture) -> None:
    file = TrustFile(str(tmp_path / "new"))
    text = said(file, capsys, "accept", "node-9", "--fingerprint", NEW)
    assert text.startswith(
        f"https://node-9:8443 is not known yet; this is the certificate that it must show:\n  {NEW}\n"
    )
    known = (file.read() or {})["https://node-9:8443"]
    assert (known.fingerprint, known.by) == (NEW, "person")


def test_a_host_that_is_forgotten_is_gone_and_what_that_means_is_said(file: TrustFile, capsys: Capture) -> None:
    assert "whatever certificate it shows next is trusted" in said(file, capsys, "forget", CHANGED)
    assert file.read() == {SAME: HOSTS[SAME]}


def test_a_damaged_store_is_told_and_left_alone(file: TrustFile, capsys: Capture) -> None:
    Path(file.path).write_bytes(b"x")
    for arguments in (("list",), ("forget", CHANGED), ("accept", CHANGED, "--fingerprint", NEW)):
        assert refused(file, capsys, *arguments).startswith(f"lxdsched trust: {file.path}: is damaged: ")


def test_without_a_terminal_it_must_be_told_the_fingerprint(file: TrustFile) -> None:
    done = subprocess.run(
        [LXDSCHED, "trust", "accept", "node-1", "--state-directory", file.directory],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"lxdsched trust: nobody can be asked here: say --fingerprint {NEW} if that is the right one\n"
    )
    assert file.read() == HOSTS


@pytest.mark.parametrize(
    ("answer", "trusted"), [(b"y\n", NEW), (b"Yes\n", NEW), (b"n\n", OLD), (b"\n", OLD), (b"\x04", OLD), (None, OLD)]
)
def test_on_a_terminal_it_asks(file: TrustFile, answer: bytes | None, trusted: str) -> None:
    ours, theirs = pty.openpty()
    command = [LXDSCHED, "trust", "accept", "node-1", "--state-directory", file.directory]
    with subprocess.Popen(
        command, env=clean_environment(), stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    ) as process:
        assert process.stdout is not None
        output = b""
        while b"[y/N]" not in output:
            output += process.stdout.read(1) or pytest.fail(output.decode())
        if answer is not None:
            os.write(ours, answer)
        while answer is None and process.poll() is None:
            # One that comes right before it begins to read is noted, and heard with the next one.
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        output += process.communicate(timeout=60)[0]
    os.close(theirs)
    os.close(ours)
    assert b"Traceback" not in output
    assert output.index(OLD.encode()) < output.index(NEW.encode()) < output.index(b"[y/N]")
    assert process.returncode == (0 if trusted == NEW else 1)
    assert (file.read() or {})[CHANGED].fingerprint == trusted


def test_what_is_shown_meanwhile_is_not_what_was_agreed_to(
    file: TrustFile, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def agree(_question: str) -> str:
        file.update(lambda _: {CHANGED: Known(OLD, AT, "first_use", Shown(OTHER, AT))})
        return "y"

    monkeypatch.setattr("builtins.input", agree)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert main(["accept", "node-1", "--state-directory", file.directory], {}) == 1
    assert f"{CHANGED} has shown another certificate meanwhile" in capsys.readouterr().err
    assert (file.read() or {})[CHANGED].fingerprint == OLD


def test_what_a_certificate_says_cannot_move_the_cursor(file: TrustFile, capsys: Capture) -> None:
    evil = make_certificate("x\x1b[2J\nhttps://node-2:8443", now=AT, san=[f"name-{number}" for number in range(50)])
    shown = describe(evil.certificate, AT)
    assert len(shown.names) == 8
    file.update(lambda _: {CHANGED: Known(OLD, AT, "first_use", shown)})
    text = said(file, capsys, "list")
    assert "\x1b" not in text
    assert len(text.splitlines()) == 9


def test_help_names_what_can_be_done(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("list", "accept", "forget"))
