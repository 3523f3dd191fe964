"""`twistd lxdsched`, from its start to its end, over a simulated fleet."""

from __future__ import annotations

import json
import select
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import (
    BIN,
    LXDSCHED,
    PATIENCE,
    TOLD_TO_END,
    TWISTD,
    Daemon,
    clean_environment,
    daemon,
    faulty,
    free_port,
    run,
    wait_for_port,
)


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[dict[str, Any]]]:
    """The LXD_MULTI_HOSTS of a simulated fleet of five, as `lxdsched sandbox` prints it."""
    with run([LXDSCHED, "sandbox"], clean_environment()) as sandbox:
        line = sandbox.wait_for("LXD_MULTI_HOSTS=")
        (assignment,) = shlex.split(line)
        found = json.loads(assignment.partition("=")[2])
        assert isinstance(found, list)
        yield found
        assert sandbox.end() == 0


@pytest.fixture
def served(hosts: list[dict[str, Any]]) -> Iterator[Daemon]:
    """A daemon over that fleet."""
    with daemon(hosts) as running:
        yield running


def failed(command: list[str], status: int | None = None, /, **environment: str) -> str:
    """Run something that cannot start, because of its configuration without a `status`; return what it says of it."""
    done = subprocess.run(
        command, env=clean_environment(**environment), capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == (faulty(command) if status is None else status)
    assert "Traceback" not in done.stderr + done.stdout
    return done.stderr


def test_it_answers_both_forms_with_a_host_as_it_was_configured(served: Daemon, hosts: list[dict[str, Any]]) -> None:
    configured = {host["host"] for host in hosts}
    status, documented = served.schedule(cores=2, memory=2048)
    assert status == 200
    assert documented["host"] in configured
    status, flat = served.ask("POST", "/schedule", {"cpu": 2, "memory": 2147483648})
    assert (status, flat["host"]) == (200, documented["host"])
    _, shown = served.ask("GET", "/hosts")
    least = min(shown["hosts"], key=lambda host: host["cpu"]["allocated"])
    assert documented["host"] == least["host"]
    assert served.ask("GET", "/readyz") == (200, {"status": "ready", "hosts": 5, "schedulable": 5})


def test_times_are_the_time_of_day(served: Daemon) -> None:
    _, shown = served.ask("GET", "/hosts")
    for host in shown["hosts"]:
        observed = datetime.fromisoformat(host["observed_at"])
        assert abs((datetime.now(UTC) - observed).total_seconds()) < PATIENCE


def test_its_log_is_one_json_object_a_line(served: Daemon) -> None:
    served.schedule()
    assert served.running.end() == TOLD_TO_END
    assert all(line.startswith("{") for line in served.running.lines)
    lines = served.log()
    assert all(list(line)[:3] == ["time", "level", "msg"] for line in lines)
    assert {line["level"] for line in lines} == {"INFO"}
    assert [line["status"] for line in lines if line.get("path") == "/schedule"] == [200]


def test_lower_levels_are_left_out_of_the_log(hosts: list[dict[str, Any]]) -> None:
    with daemon(hosts, LXD_MULTI_LOG_LEVEL="error") as served:
        assert served.ask("GET", "/healthz") == (200, {"status": "ok"})
        assert served.running.end() == TOLD_TO_END
        assert served.running.lines == []


def test_a_log_file_is_written_where_twistd_is_told_to_and_rotated_by_its_signal(
    hosts: list[dict[str, Any]], tmp_path: Path
) -> None:
    log = tmp_path / "lxdsched.log"
    command = [*TWISTD[:-1], f"--logfile={log}", "lxdsched"]
    port = free_port()
    environment = clean_environment(LXD_MULTI_HOSTS=json.dumps(hosts), LXD_MULTI_SCHEDULER_PORT=str(port))
    with run(command, environment) as running:
        wait_for_port(port, running)
        running.process.send_signal(signal.SIGUSR1)
        while not (tmp_path / "lxdsched.log.1").exists():
            assert running.process.poll() is None
        assert running.end() == TOLD_TO_END
    lines = [line for each in tmp_path.iterdir() for line in each.read_text().splitlines()]
    assert any("listens on" in json.loads(line)["msg"] for line in lines)


def test_a_request_in_flight_is_answered_when_it_is_told_to_stop(served: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as busy:
        body = b'{"cpu":1,"memory":1}'
        busy.sendall(b"POST /schedule HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + body[:-1])
        assert served.ask("GET", "/healthz")[0] == 200
        served.running.process.send_signal(signal.SIGTERM)
        served.running.wait_for("Received SIGTERM")
        busy.sendall(body[-1:])
        answer = busy.makefile("rb").read()
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 "))
    assert served.running.end() == TOLD_TO_END


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_impatience_is_no_error(served: Daemon, number: signal.Signals) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as busy:
        body = b'{"cpu":1,"memory":1}'
        busy.sendall(b"POST /schedule HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + body[:-1])
        assert served.ask("GET", "/healthz")[0] == 200
        served.running.process.send_signal(number)
        served.running.wait_for("shutting down")
        served.running.process.send_signal(number)
        served.running.wait_for("already stopping")
        busy.sendall(body[-1:])
        assert busy.makefile("rb").read().startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 "))
    assert served.running.end() == -number
    assert not [line for line in served.running.lines if "ERROR" in line]


def test_load_while_it_stops_gets_whole_answers_or_no_connection(served: Daemon) -> None:
    answers: list[int] = []
    broken: list[Exception] = []

    def ask() -> None:
        while True:
            try:
                answers.append(served.schedule()[0])
            except ConnectionRefusedError:
                return
            except Exception as error:  # whatever it is, it is a lost request
                broken.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(answers) < 20:
        pass
    assert served.running.end() == TOLD_TO_END
    for thread in threads:
        thread.join()
    # A connection that the kernel had accepted and the daemon had not is reset: the one loss there can be.
    assert all(isinstance(error, ConnectionResetError | BrokenPipeError) for error in broken), broken
    assert set(answers) <= {200, 503}


def test_every_fault_of_the_configuration_is_said_at_once(tmp_path: Path) -> None:
    said = failed([*TWISTD, "--strategy", "best", "--port=x"], LXD_MULTI_HOSTS='["node-1"]', LXD_MULTI_LOG_LEVEL="loud")
    assert said.splitlines() == [
        "lxdsched cannot start, its configuration has 5 faults:",
        "  --port: is 'x', not a whole number",
        "  LXD_MULTI_LOG_LEVEL: is 'loud', not one of DEBUG, INFO, WARN, ERROR",
        "  --strategy: 'best' is not a strategy; these are: "
        "balanced, fewest-instances, least-allocated, least-allocated-percent, most-allocated",
        "  LXD_MULTI_HOSTS[0].client_cert: is missing, and no default client_cert is set",
        "  LXD_MULTI_HOSTS[0].client_key: is missing, and no default client_key is set",
    ]


def test_a_log_that_cannot_be_written_is_said_and_it_ends(hosts: list[dict[str, Any]]) -> None:
    command = [*TWISTD[:-1], "--logfile=/nowhere/lxdsched.log", "lxdsched"]
    said = failed(command, 1, LXD_MULTI_HOSTS=json.dumps(hosts))
    assert "its log cannot be written: /nowhere/lxdsched.log: No such file or directory" in said


def test_a_port_that_is_taken_is_said_and_it_ends(hosts: list[dict[str, Any]]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        settings = clean_environment(LXD_MULTI_HOSTS=json.dumps(hosts), LXD_MULTI_SCHEDULER_PORT=port)
        with run(TWISTD, settings) as running:
            running.wait_for(f"lxdsched: cannot listen on 127.0.0.1:{port}: Address already in use")
            assert running.end(signal.SIGCONT) == 1


def test_it_starts_from_any_directory_with_options_and_a_file(hosts: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "lxdsched.toml"
    file.write_text('strategy = "balanced"\nlog_format = "text"\n')
    with daemon(hosts, "--config", str(file), "--strategy=most-allocated", directory=Path("/")) as served:
        assert served.schedule()[0] == 200
        assert served.running.end() == TOLD_TO_END
    assert any(" INFO  lxdsched " in line for line in served.running.lines)
    assert any("POST /schedule 200 for 127.0.0.1: https://" in line for line in served.running.lines)
    # Of Twisted's own parts nobody wants to know.
    assert not any(
        word in line for word in ("Admission", "reactor", "loop", "Closed)") for line in served.running.lines
    )


def test_listening_to_the_world_without_access_control_is_a_warning(hosts: list[dict[str, Any]]) -> None:
    with daemon(hosts, "--interface=0.0.0.0") as served:
        served.running.wait_for("there is no access control")
        assert served.running.end() == TOLD_TO_END


def test_check_says_whether_the_configuration_is_good(hosts: list[dict[str, Any]]) -> None:
    done = subprocess.run(
        [LXDSCHED, "check"],
        env=clean_environment(LXD_MULTI_HOSTS=json.dumps(hosts), LXD_MULTI_SCHEDULER_PROT="1"),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "the configuration is good: 5 hosts, strategy least-allocated\n"
    assert "did you mean LXD_MULTI_SCHEDULER_PORT" in done.stderr
    assert failed([LXDSCHED, "check"], LXD_MULTI_HOSTS="[]") == "LXD_MULTI_HOSTS: names no host\n"


def test_a_name_that_is_no_setting_is_said_beside_the_faults_that_it_may_have_led_to() -> None:
    settings = {"LXD_MULTI_HOSTS": "[]", "LXD_MULTI_SCHEDULER_PROT": "1"}
    prefix = "LXD_MULTI_SCHEDULER_"
    warning = f"warning: {prefix}PROT is not a setting of lxdsched, did you mean {prefix}PORT?; ignored"
    for command, indent in (([LXDSCHED, "check"], ""), (TWISTD, "  ")):
        said = failed(command, **settings).splitlines()[-2:]
        assert said == [f"{indent}LXD_MULTI_HOSTS: names no host", indent + warning]


def test_the_help_names_every_option_with_its_variable() -> None:
    done = subprocess.run(
        [str(BIN / "twistd"), "lxdsched", "--help"], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert "--over-commit-percent=" in done.stdout
    assert "LXD_MULTI_OVER_COMMIT_PERCENT" in "".join(done.stdout.split())


def test_the_sandbox_runs_a_command_on_its_fleet_and_ends_with_it() -> None:
    port = free_port()
    environment = clean_environment(LXD_MULTI_SCHEDULER_PORT=str(port))
    with run([LXDSCHED, "sandbox", "--hosts", "3", "--", *TWISTD], environment) as running:
        running.wait_for("listens on http://")
        served = Daemon(running, port)
        assert served.schedule()[0] == 200
        assert running.end() == 128 + signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        served.schedule()


def test_the_plugin_brings_nothing_of_the_application_with_it() -> None:
    program = (
        "import sys; import twisted.plugins.lxdsched_plugin\n"
        "print('klein' in sys.modules, 'twisted.internet.reactor' in sys.modules)"
    )
    python = str(BIN / "python")
    done = subprocess.run(
        [python, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE, cwd="/"
    )
    assert done.stdout == "False False\n"


def test_who_has_to_wait_at_the_door_when_the_daemon_stops_is_answered(hosts: list[dict[str, Any]]) -> None:
    with daemon(hosts, "--max-rate-per-peer=1") as running, ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), PATIENCE)) for _ in range(2)
        ]
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        # Whoever came first is answered by now, and with that the address may ask no more for seconds.
        select.select(clients, [], [], PATIENCE)
        running.running.process.send_signal(signal.SIGTERM)
        for client in clients:
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
