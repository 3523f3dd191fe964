"""What systemd hears of the daemon from its start to its end. A real systemd is in `make system-test`."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tests.datagrams import Heard
from tests.e2e.daemon import PATIENCE, TOLD_TO_END, daemon
from tests.e2e.replicas import simulated


def until(heard: Heard, enough: Callable[[dict[str, str]], bool]) -> list[dict[str, str]]:
    """Return what is heard up to what is enough."""
    found: list[dict[str, str]] = []
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if (told := heard.next(within=1)) is not None:
            found.append(told)
            if enough(told):
                return found
    raise AssertionError(found)


def test_systemd_hears_of_the_daemon_from_its_start_to_its_end(tmp_path: Path) -> None:
    with simulated(1, 8) as fleet, socket.create_server(("127.0.0.1", 0)) as deaf, Heard(tmp_path / "notify") as heard:
        silent = {**fleet.hosts[0], "host": f"https://127.0.0.1:{deaf.getsockname()[1]}"}
        with daemon(
            [*fleet.hosts, silent], "--host-timeout=1", NOTIFY_SOCKET=heard.path, WATCHDOG_USEC="900000"
        ) as running:
            before = until(heard, lambda told: "READY" in told)
            assert before[0] == {"STATUS": "looking at 2 hosts for the first time"}
            assert before[-1]["STATUS"] in {"2 hosts: 1 live, 1 unreachable", "2 hosts: 1 polled, 1 unreachable"}
            assert running.ask("GET", "/readyz")[0] == 200
            for _ in range(3):
                until(heard, lambda told: told.get("WATCHDOG") == "1")
            running.running.process.send_signal(signal.SIGHUP)
            until(heard, lambda told: told.get("RELOADING") == "1")
            until(heard, lambda told: told.get("READY") == "1")
            assert running.running.end() == TOLD_TO_END
        assert until(heard, lambda told: told.get("STOPPING") == "1")[-1]["STATUS"].startswith("answering what is")
        assert heard.told() == []
