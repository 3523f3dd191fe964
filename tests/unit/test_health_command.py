"""Where `lxdsched health` asks, and what it says of answers that are none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lxdsched.health_command import main
from lxdsched.listener.reach import from_here

PREFIX = "LXD_MULTI_SCHEDULER_"


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("tcp:8080", ("127.0.0.1", 8080)),
        ("tcp:8080:interface=0.0.0.0", ("127.0.0.1", 8080)),
        ("tcp:8080:interface=192.0.2.5", ("192.0.2.5", 8080)),
        (r"tcp6:8080:interface=\:\:", ("::1", 8080)),
        (r"tcp6:8080:interface=fe80\:\:1%eth0", ("fe80::1%eth0", 8080)),
        ("unix:/run/x:mode=660", "/run/x"),
        ("tcp:0", None),
        ("systemd:domain=INET:index=0", None),
        ("tcp:8080:1:2:3", None),
    ],
)
def test_how_this_machine_connects_to_an_endpoint(endpoint: str, place: object) -> None:
    assert from_here(endpoint) == place


@contextmanager
def answering(answer: bytes) -> Iterator[dict[str, str]]:
    """Listen, and answer one connection like this; yield the environment that leads there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield {f"{PREFIX}PORT": str(listening.getsockname()[1])}
        thread.join()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "it is not lxdsched that answers"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<\x1b[m>", "Expecting value"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 20\r\n\r\n" + b'{"error":"\\u001b[m"}', ": 500 \\x1b[m"),
        (b"SSH-2.0-OpenSSH\r\n", "SSH-2.0-OpenSSH"),
        (b"", "closed connection without response"),
    ],
)
def test_what_is_no_good_answer_is_told_on_one_line(
    answer: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(answer) as environment:
        assert main([], environment) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert "\x1b" not in captured.err


def test_who_says_nothing_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert main(["--timeout", "0.05"], {f"{PREFIX}PORT": str(listening.getsockname()[1])}) == 1
    assert "timed out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PORT": "many"}, "LXD_MULTI_SCHEDULER_PORT: is 'many', not a whole number"),
        ({"PORT": "8081", "ENDPOINT": "tcp:80"}, "LXD_MULTI_SCHEDULER_PORT: is set, and endpoint says where"),
        ({"PORT": "0"}, "only the daemon knows where tcp:0:interface=127.0.0.1 is: set metrics_endpoint"),
        ({"ENDPOINT": "systemd:domain=INET:index=0"}, "only the daemon knows where systemd:domain=INET:index=0 is"),
        ({"CONFIG": "/nonexistent"}, "/nonexistent"),
    ],
)
def test_a_configuration_that_does_not_tell_is_a_failure(
    settings: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], {PREFIX + name: value for name, value in settings.items()}) == 1
    assert said in capsys.readouterr().err


def test_it_is_not_asked_at_the_main_door_where_there_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {f"{PREFIX}METRICS_ENDPOINT": f"unix:{tmp_path / 'socket'}"}
    assert main([], settings) == 1
    assert f"unix:{tmp_path / 'socket'}/healthz" in capsys.readouterr().err


def test_not_every_failed_handshake_is_that_of_who_requires_a_certificate(capsys: pytest.CaptureFixture[str]) -> None:
    required = {f"{PREFIX}TLS_CERT": "server.crt", f"{PREFIX}TLS_CLIENT_AUTH": "required"}
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as environment:
        assert main([], environment | required) == 1
    assert capsys.readouterr().err.startswith("lxdsched health: https://127.0.0.1:")
