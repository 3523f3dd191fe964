"""What goes wrong with the daemon of the package, and that systemd brings it back."""

from __future__ import annotations

import time

from tests.system.machine import Failed, Machine, until
from tests.system.serve import demand, expect

WATCHDOG = 30.0
"""Seconds within which systemd wants to hear from it: `WatchdogSec` of the unit."""


def crash(machine: Machine) -> None:
    """Kill it."""
    process, restarts = machine.show("MainPID", "NRestarts")
    machine.run(f"kill -KILL {process}")
    _returned(machine, process, int(restarts), 20)


def hang(machine: Machine) -> None:
    """Stop it, as if it hung."""
    process, restarts = machine.show("MainPID", "NRestarts")
    machine.run(f"kill -STOP {process}")
    _returned(machine, process, int(restarts), WATCHDOG + 20)
    machine.run("journalctl --no-pager --unit=lxdsched --output=cat --lines=30 | grep -i watchdog")


def unreachable(machine: Machine) -> None:
    """Start it while no host answers: it is ready all the same, and goes on by itself when one does."""
    machine.lxc("config", "set", "core.https_address", "")
    start = time.monotonic()
    machine.run("systemctl restart lxdsched")
    print(f"   ready after {time.monotonic() - start:.1f} s, without a host", flush=True)
    machine.run("systemctl show lxdsched --property=StatusText,ActiveState")
    status, _ = demand(machine, shown=True)
    if status != 503:
        raise Failed(f"it answers {status} though it reaches no host")
    machine.lxc("config", "set", "core.https_address", f"127.0.0.1:{machine.lxd_port}")
    took = until("it answers again", lambda: demand(machine)[0] == 200, 60)
    print(f"   answers {took:.1f} s after the host is back", flush=True)


def _returned(machine: Machine, process: str, restarts: int, seconds: float) -> None:
    took = until("another process runs", lambda: machine.show("MainPID", "ActiveState") not in _dead(process), seconds)
    until("it answers", lambda: demand(machine)[0] == 200, 20)
    print(f"   another process answers after {took:.1f} s", flush=True)
    expect("restarts", machine.show("NRestarts"), (str(restarts + 1),))


def _dead(process: str) -> set[tuple[str, ...]]:
    states = ("active", "activating", "deactivating", "failed", "inactive")
    return {(each, state) for each in (process, "0") for state in states}
