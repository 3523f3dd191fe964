"""An honest client beside hostile ones, and how long it waits for what it asks."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.hostility import trusting

LONGEST = 30.0
"""Seconds after which the honest client gives up."""
BODY = json.dumps({"instance_requirements": {"cpu": 1, "memory": 1024}})


@dataclass
class Honest:
    """A client that asks for a place and gives it back, now on a connection that it keeps, now on a new one.

    `kept` and `new` are the seconds that `POST /schedule` took; with `new` ones the connecting counts. `work` are the
    seconds that the daemon, which tells them by `on_cpu`, worked meanwhile for this client and all others: unlike the
    time on the clock they do not depend on what else the machine does.
    """

    port: int
    tls: bool
    on_cpu: Callable[[], float] = time.process_time
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.3
    kept: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def ask(self, until: threading.Event) -> None:
        """Ask until told to stop."""
        connection = self.connect()
        while not until.wait(self.pause):
            self._pair(connection, self.kept)
            until.wait(self.pause)
            self._pair(fresh := self.connect(), self.new)
            fresh.close()
        connection.close()

    def _pair(self, connection: http.client.HTTPConnection, times: list[float]) -> None:
        began, worked = time.perf_counter(), self.on_cpu()
        try:
            status, answer = self._first(connection)
            times.append(time.perf_counter() - began)
            self.work.append(self.on_cpu() - worked)
            if status == http.client.OK:
                status, answer = self.exchange(connection, "DELETE", f"/reservations/{answer['reservation']['id']}")
            if status != http.client.NO_CONTENT:
                self.failures.append(f"{status}: {answer}")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.failures.append(f"{error!r} after {time.perf_counter() - began:.2f} s")

    def _first(self, connection: http.client.HTTPConnection) -> Any:
        kept = connection.sock is not None
        try:
            return self.exchange(connection, "POST", "/schedule", BODY)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, http.client.RemoteDisconnected):
            if not kept:
                raise
            # It has waited for too long between two requests: as every client does, this one connects again.
            connection.close()
            return self.exchange(connection, "POST", "/schedule", BODY)

    def exchange(self, connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> Any:
        """Ask; return status and JSON."""
        connection.request(method, path, body, dict(self.headers))
        response = connection.getresponse()
        said = response.read()
        return response.status, json.loads(said) if said else {}

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection, which connects when it is first used."""
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=LONGEST, context=trusting())
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST)


def quantiles(times: Sequence[float]) -> tuple[float, float, float]:
    """Return median, 95th and 99th percentile."""
    ordered = sorted(times)
    median, most, nearly_all = (ordered[min(int(len(ordered) * part), len(ordered) - 1)] for part in (0.5, 0.95, 0.99))
    return median, most, nearly_all


def summed(times: Sequence[float]) -> str:
    """Say in a few words how long something took."""
    if not times:
        return "never"
    figures = "/".join(f"{seconds * 1000:.1f}" for seconds in quantiles(times))
    return f"{len(times)} x {figures} ms"
