"""`lxdsched key`, as a person uses it."""

from __future__ import annotations

import resource
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lxdsched.access import Right
from lxdsched.access.command import main
from lxdsched.cli import main as program
from tests.unit.access import NOW, clients, row, token

PROGRAM = str(Path(sys.executable).with_name("lxdsched"))
OLD = f"""\
# ours
[shoes-1] # in rack 1
rights = ["schedule"]
keys = [
  {row(token("00000001"))}, # Joe's
  {row(token("00000002"), "2026-11-26T11:00:00Z")},
]
fingerprints = ["{"ab" * 32}"]
names = ["shoes-1.example.com"]

# for nobody yet
[spare]
rights = ["read", "admin"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "clients.toml"
    file.write_text(OLD)
    return file


def key(*arguments: object, status: int = 0, configured: str | None = None) -> None:
    assert main([str(each) for each in arguments], lambda _: configured, clock=lambda: NOW) == status


def run(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "key", *map(str, arguments)], stderr=subprocess.PIPE, text=True, check=False, **more
    )


def test_a_new_key_is_printed_once_and_works(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key("new", "shoes-2", "--file", path)
    out, err = capsys.readouterr()
    secret = out.strip()
    assert out == secret + "\n"
    client = clients(path.read_text()).by_key(secret, NOW)
    assert (client.name, client.rights) == ("shoes-2", frozenset({Right.SCHEDULE}))
    assert secret not in err + path.read_text()
    assert path.read_text().startswith(OLD)
    for said in (
        f"This is the key {secret[9:17]} of shoes-2, which may: schedule. It never ends.",
        "It is shown now and never again.",
        "  Authorization: Bearer KEY",
        "  http://shoes-2:KEY@HOST:PORT",
        f"{path} is changed.",
    ):
        assert said in err


def test_the_first_key_makes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clients.toml"
    key("new", "joe@example.com", "--file", path, "--rights", " read,schedule ", "--expires", "90d")
    err = capsys.readouterr().err
    (entry,) = clients(path.read_text()).entries
    assert entry.client.rights == {Right.READ, Right.SCHEDULE}
    assert (entry.keys[0].created, entry.keys[0].expires) == (NOW, NOW + timedelta(days=90))
    assert "which may: schedule, read. It ends on 2027-02-24 12:00 UTC." in err
    assert "http://joe%40example.com:KEY@HOST:PORT" in err
    assert "is new: the user of the daemon must be able to read it" in err


def test_a_client_gets_a_second_key_so_that_keys_can_be_rotated(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key("new", "spare", "--file", path)
    first = capsys.readouterr().out.strip()
    key("new", "spare", "--file", path, "--rights", "admin,read")
    second = capsys.readouterr().out.strip()
    known = clients(path.read_text())
    assert known.by_key(first, NOW) == known.by_key(second, NOW)
    assert known.by_key(first, NOW).rights == {Right.READ, Right.ADMIN}
    key("revoke", first[9:17], "--file", path)
    assert [each.id for each in clients(path.read_text()).entries[1].keys] == [second[9:17]]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["spare", "--rights", "read"], "spare is there already, with other rights (read, admin): change them in"),
        (["new", "--rights", "shedule"], "--rights is 'shedule', not one of schedule, read, admin, did you mean sch"),
        (["new", "--rights", ""], "--rights is '', not one of schedule, read, admin"),
        (["new", "--rights", "read,"], "--rights is '', not one of"),
        (["a b"], "'a b' is not a client's name, which is 1 to 64 of"),
        (["a\ud800\x1b"], "'a\\ud800\\x1b' is not a client's name"),
        (
            ["new", "--expires", "soon"],
            "--expires is 'soon', not like 90d, 12h, 2027-01-31, 2027-01-31T12:00:00Z or never",
        ),
        (["new", "--expires", "0d"], "--expires is 0d, which is over already"),
        (["new", "--expires", "2026-11-26"], "--expires is 2026-11-26, which is over already"),
        (["new", "--expires", "2027-02-30"], "--expires is '2027-02-30', not like"),
        (["new", "--expires", "2027-01-31T12:00"], "--expires is '2027-01-31T12:00', not like"),
        (["new", "--expires", "999999d"], None),
        (["new", "--expires", "9999999d"], "--expires is '9999999d', not like"),
        (["new", "--expires", "9999-12-31T23:59:59-23:00"], "which is beyond all times"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    arguments: list[str], why: str | None, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key("new", *arguments, "--file", path, status=0 if why is None else 1)
    out, err = capsys.readouterr()
    if why is not None:
        assert why in err
        assert err.count("\n") == 1
        assert out == ""
        assert path.read_text() == OLD


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("12h", NOW + timedelta(hours=12)),
        ("1d", NOW + timedelta(days=1)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00:00+01:00", datetime(2027, 1, 31, 11, tzinfo=UTC)),
        ("never", None),
    ],
)
def test_when_a_key_ends(text: str, end: datetime | None, path: Path) -> None:
    key("new", "new", "--file", path, "--expires", text)
    assert clients(path.read_text()).entries[-1].keys[0].expires == end


def test_the_list_is_a_table_for_people(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key("list", "--file", path)
    pinned = "certificate " + "ab" * 32
    rows = [
        ("client ", "rights     ", "credential  ", "created             ", "expires"),
        ("shoes-1", "schedule   ", "key 00000001", "2026-11-26 10:00 UTC", "never"),
        ("shoes-1", "schedule   ", "key 00000002", "2026-11-26 10:00 UTC", "2026-11-26 11:00 UTC (expired)"),
        ("shoes-1", "schedule   ", pinned),
        ("shoes-1", "schedule   ", "name shoes-1.example.com"),
        ("spare  ", "read, admin", "none"),
    ]
    assert capsys.readouterr().out.splitlines() == ["  ".join(row) for row in rows]


def test_a_list_of_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    key("list", "--file", tmp_path / "empty")
    assert capsys.readouterr() == ("", f"{tmp_path}/empty: there is no client\n")


def test_one_key_is_revoked_by_its_id(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key("revoke", "00000002", "--file", path)
    _, err = capsys.readouterr()
    assert [each.id for each in clients(path.read_text()).entries[0].keys] == ["00000001"]
    assert path.read_text() == OLD.replace(f"  {row(token('00000002'), '2026-11-26T11:00:00Z')},\n", "")
    assert (
        "The key 00000002 of shoes-1 is revoked. It was made on 2026-11-26 10:00 UTC, and would have ended on "
        "2026-11-26 11:00 UTC." in err
    )
    assert "What is left to shoes-1, which may: schedule: key: 1, fingerprint: 1, name in certificates: 1." in err


def test_a_leaked_key_is_revoked_by_itself(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key("revoke", token("00000001"), "--file", path)
    assert "The key 00000001 of shoes-1 is revoked." in capsys.readouterr().err


def test_all_keys_of_a_client_are_revoked_by_its_name(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key("revoke", "shoes-1", "--file", path)
    _, err = capsys.readouterr()
    entry = clients(path.read_text()).entries[0]
    assert (entry.keys, len(entry.fingerprints)) == ((), 1)
    assert err.count("is revoked") == 2
    assert "fingerprint: 1, name in certificates: 1." in err
    assert [word in path.read_text() for word in ("# ours", "# in rack 1", "# for nobody yet")] == [True] * 3


def test_a_client_without_keys_has_none_to_revoke(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key("revoke", "spare", "--file", path)
    assert capsys.readouterr().err.splitlines() == [
        "spare has no key.",
        "What is left to spare, which may: read, admin: nothing, it cannot come in.",
    ]
    assert path.read_text() == OLD


@pytest.mark.parametrize("what", ["nobody", "99999999", "", "\ud800"])
def test_what_is_not_there_cannot_be_revoked(what: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key("revoke", what, "--file", path, status=1)
    assert capsys.readouterr().err == f"{path}: {what!r} is neither a client nor a key\n"


def test_a_client_that_is_called_as_a_key_is_not_guessed_at(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(OLD + '[00000001]\nrights = ["read"]\n')
    key("revoke", "00000001", "--file", path, status=1)
    assert "00000001 is a client, and also a key of shoes-1" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["new", "a"], ["list"], ["revoke", "a"]])
def test_a_faulty_file_is_left_alone(command: list[str], path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("[a]\n[b]\n")
    key(*command, "--file", path, status=1)
    out, err = capsys.readouterr()
    assert (out, err.count(f"{path}: ")) == ("", 2)
    assert path.read_text() == "[a]\n[b]\n"


def test_without_a_file_nothing_is_done(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    key("list", status=1)
    assert "no clients file: give --file FILE, or set clients_file" in capsys.readouterr().err
    key("list", "--file", tmp_path / "missing", status=1)
    key("revoke", "a", configured=str(tmp_path / "missing"), status=1)
    assert capsys.readouterr().err == f"{tmp_path}/missing: No such file or directory\n" * 2


def test_the_file_is_the_configured_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("CONFIG", "CLIENTS_FILE"):
        monkeypatch.delenv(f"LXD_MULTI_SCHEDULER_{variable}", raising=False)
    config = tmp_path / "lxdsched.toml"
    config.write_text(f'clients_file = "{path}"\nport = "not a port"\nnonsense = 1\n')
    assert program(["key", "new", "one", "--config", str(config)]) == 0
    monkeypatch.setenv("LXD_MULTI_SCHEDULER_CONFIG", str(config))
    assert program(["key", "new", "two"]) == 0
    config.write_text("[")
    with pytest.raises(SystemExit, match="not a TOML file"):
        program(["key", "list"])
    monkeypatch.setenv("LXD_MULTI_SCHEDULER_CLIENTS_FILE", str(path))
    assert program(["key", "new", "three"]) == 0
    assert [entry.client.name for entry in clients(path.read_text()).entries][2:] == ["one", "two", "three"]


def test_a_key_is_sent_to_where_there_is_tls_over_tls(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("CONFIG", "TLS_CERT"):
        monkeypatch.delenv(f"LXD_MULTI_SCHEDULER_{variable}", raising=False)
    config = tmp_path / "lxdsched.toml"
    for text, url in (
        ("", "http://a:KEY@HOST"),
        ('tls_cert = "x"', "https://a:KEY@HOST"),
        ("tls_cert = 1", "http://a:KEY@"),
    ):
        config.write_text(text)
        assert program(["key", "new", "a", "--file", str(path), "--config", str(config)]) == 0
        assert f" {url}" in capsys.readouterr().err


def test_a_directory_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key("new", "a", "--file", tmp_path / "none" / "clients.toml", status=1)
    assert capsys.readouterr().err == f"{tmp_path}/none: No such file or directory\n"


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "clients.toml"
    processes = [
        subprocess.Popen(
            [PROGRAM, "key", "new", name, "--file", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in ("a", "b", "a", "b", "c", "c")
    ]
    printed = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, printed
    known = clients(path.read_text())
    assert [known.by_key(out.strip(), datetime.now(UTC)).name for out, _ in printed] == list("ababcc")


def test_on_a_full_disk_nothing_is_lost_and_no_key_is_shown(path: Path) -> None:
    for command in (["new", "spare"], ["revoke", "00000001"]):
        ended = run(
            *command,
            "--file",
            path,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"{path}: File too large\n")
        assert path.read_text() == OLD
        assert sorted(each.name for each in path.parent.iterdir()) == [".clients.toml.lock", "clients.toml"]


def test_a_key_that_cannot_be_printed_is_undone(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.toml"
    with open("/dev/full", "w") as full:
        for file in (path, new):
            ended = run("new", "spare", "--file", file, stdout=full)
            assert ended.returncode == 1
            assert ended.stderr.endswith("could not be printed (No space left on device), and is undone\n")
            assert ended.stderr.count("\n") == 1
        ended = run("list", "--file", path, stdout=full)
        assert (ended.returncode, ended.stderr) == (1, "the list could not be printed: No space left on device\n")
    assert path.read_text() == OLD
    assert not new.exists()


def test_streams_that_are_closed_or_full_are_no_traceback(path: Path) -> None:
    shell = 'exec "$0" key "$@"'
    for command, streams, status, out in (
        (["new", "spare"], ">&-", 1, ""),
        (["list"], ">&-", 1, ""),
        (["new", "a b"], "2>&-", 1, ""),
        (["revoke", "00000001"], "2>/dev/full", 0, ""),
        (["revoke", "00000002"], "2>&-", 0, ""),
    ):
        ended = subprocess.run(
            ["/bin/sh", "-c", f"{shell} {streams}", PROGRAM, *command, "--file", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (status, out)
        assert "Traceback" not in ended.stderr
        assert ("Bad file descriptor" in ended.stderr) == (streams == ">&-")
    shoes, spare = clients(path.read_text()).entries
    assert (shoes.keys, spare.keys) == ((), ())


def test_help_and_wrong_words(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status in ((["--help"], 0), (["new", "--help"], 0), ([], 2), (["shred"], 2), (["new"], 2)):
        with pytest.raises(SystemExit) as caught:
            program(["key", *arguments])
        assert caught.value.code == status
    assert "key" in capsys.readouterr().out


def test_no_name_of_a_file_moves_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key("list", "--file", tmp_path / "a\x9b31m", status=1)
    key("new", "one", "--file", tmp_path / "b\x9b31m")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"{tmp_path}/a\\x9b31m: No such file or directory"
    assert all(line.isprintable() for line in said)
