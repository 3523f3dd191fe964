"""Goes through the life of the package: `python -m tests.system ROOT.tar OLD.deb NEW.deb`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tests.system import faults, install, serve
from tests.system.machine import Failed, Machine

OLD, NEW = "/root/lxdsched-old.deb", "/root/lxdsched.deb"

Step = Callable[[Machine], None]

STEPS: tuple[tuple[str, Step], ...] = (
    ("An older version is installed, and starts nothing", lambda machine: install.install(machine, OLD)),
    ("Without hosts it does not start, says why, and is not tried again", install.unconfigured),
    ("Two lines, a certificate and a key are enough", install.configure),
    ("It answers from the real LXD, as it is", serve.answers),
    ("Its sandbox is what the unit says", serve.sandbox),
    ("Under load it is upgraded", lambda machine: install.upgrade(machine, NEW)),
    ("Clients are let in by a file that a reload reads again", serve.reload),
    ("It is restarted under load", serve.restart),
    ("A crash is followed by a start", faults.crash),
    ("A daemon that hangs is ended and started", faults.hang),
    ("LXD cannot be reached when it starts", faults.unreachable),
    ("With systemd's socket a restart refuses nobody", serve.socket),
    ("It is removed, and what was configured stays", install.remove),
    ("It is installed again, and goes on where it was", lambda machine: install.again(machine, NEW)),
    ("It is purged, and nothing of it stays", install.purge),
)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(root: Path, old: Path, new: Path) -> int:
    """Take all steps; return the exit status. Whatever happens, all that was started is ended."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _end)
    machine = Machine(root)
    begun = time.monotonic()
    try:
        machine.start()
        print(f"LXD and a Debian 12 with systemd in it run after {time.monotonic() - begun:.1f} s", flush=True)
        machine.push(old.read_bytes(), OLD)
        machine.push(new.read_bytes(), NEW)
        for number, (title, step) in enumerate(STEPS, 1):
            print(f"\n== {number}. {title}", flush=True)
            start = time.monotonic()
            step(machine)
            print(f"   good, after {time.monotonic() - start:.1f} s", flush=True)
    except Failed as failure:
        print(f"\nFAILED: {failure}\n\nThe state of things:", flush=True)
        for command in ("systemctl status --no-pager --full lxdsched", "journalctl --no-pager --lines=60"):
            machine.run(command, status=None)
        return 1
    finally:
        machine.close()
    print(f"\nAll {len(STEPS)} steps are good, after {time.monotonic() - begun:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
