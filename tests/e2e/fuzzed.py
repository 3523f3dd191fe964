"""A daemon that is asked whatever comes to mind, and how it must have borne that."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.daemon import TOLD_TO_END, Daemon, daemon, free_port

EXAMPLES = int(os.environ.get("LXDSCHED_FUZZ_EXAMPLES", "20"))
"""How many cases there are of each kind."""


@dataclass(frozen=True)
class Fuzzed:
    """A running daemon, and where its log goes."""

    daemon: Daemon
    logfile: Path

    def is_well(self) -> None:
        """Fail unless it answers."""
        assert self.daemon.ask("GET", "/healthz") == (200, {"status": "ok"})


def silent(hosts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the same hosts, as they would be where nobody listens."""
    return [{**host, "host": f"https://127.0.0.1:{free_port()}"} for host in hosts]


@contextmanager
def fuzzed(hosts: object) -> Iterator[Fuzzed]:
    """Run a daemon, and fail unless it is well in the end, and has nothing to complain of that is its own fault."""
    with tempfile.TemporaryDirectory(prefix="lxdsched-fuzzed-") as directory:
        logfile = Path(directory, "log")
        # Claims end soon, and hosts hold much, so that there is mostly room for more.
        options = ("--reservation-ttl=2", "--over-commit-percent=10000", "--log-level=debug")
        with daemon(hosts, *options, logfile=logfile) as running:
            yield (it := Fuzzed(running, logfile))
            it.is_well()
            assert running.running.end() == TOLD_TO_END
            assert running.running.lines == []
        # It has begun a new file whenever one was full.
        lines = [line for file in Path(directory).iterdir() for line in file.read_text(encoding="utf-8").splitlines()]
        assert lines
        for line in lines:
            said = json.loads(line)
            assert said["level"] in {"DEBUG", "INFO", "WARN"}, line
            assert "traceback" not in line.lower(), line
