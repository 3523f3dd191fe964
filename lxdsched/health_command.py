"""`lxdsched health`: asks the daemon of this configuration whether it is well, for those who start and watch it.

It connects as any client does, by what the environment and the file say of the listener, and needs no credential.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lxdsched.config import SETTINGS, ConfigError, Sources, find
from lxdsched.config.listener import ListenerReader
from lxdsched.listener.reach import from_here, url
from lxdsched.listener.tls import Ask
from lxdsched.quoting import MOST_QUOTED, cut, one_line

_SETTINGS = ("port", "interface", "endpoint", "metrics_endpoint", "metrics_access", "tls_cert", "tls_client_auth")
_WANTS_CERTIFICATE = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE"})
_OK = 200
_MOST_ANSWER = 4096


class Unwell(Exception):  # noqa: N818
    """The daemon is not well, or cannot be asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Door:
    """A place where it can be asked: an address and a port, or the path of a socket; over TLS where it is `secure`.

    With `certified` the handshake fails for those who have no certificate.
    """

    place: tuple[str, int] | str
    secure: bool = False
    certified: bool = False

    def __str__(self) -> str:
        """Write it as people do."""
        return f"unix:{self.place}" if isinstance(self.place, str) else url(*self.place, secure=self.secure)


def main(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run `lxdsched health` with these arguments; return the exit status."""
    arguments = _parser().parse_args(argv)
    path = "/readyz" if arguments.ready else "/healthz"
    try:
        door = _door(Sources({}, os.environ if environment is None else environment, arguments.config))
        said = _ask(door, path, arguments.timeout)
    except ConfigError as error:
        print(error, file=sys.stderr)
    except Unwell as why:
        print(one_line(f"lxdsched health: {why}"), file=sys.stderr)
    else:
        print(one_line(f"{door}{path}: {said}"))
        return 0
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lxdsched health", description="Ask the daemon of this configuration whether it is well. 0: it is."
    )
    parser.add_argument("--config", "-c", metavar="FILE", help="the TOML file that may say where it listens")
    parser.add_argument("--ready", action="store_true", help="ask /readyz instead of /healthz: can it choose a host?")
    parser.add_argument("--timeout", metavar="S", type=float, default=3.0, help="seconds to wait for it (default 3)")
    return parser


def _door(sources: Sources) -> Door:
    """Find where to ask: at the door for those who only watch, where there is one. Unwell when it cannot be known."""
    found = {name: find(sources, name) for name in _SETTINGS}
    values: dict[str, Any] = {name: value for name, (_, value) in found.items()}
    faults: list[str] = []
    defaults = {each.name: each.default for each in SETTINGS}
    listening = ListenerReader(
        values, {name: source for name, (source, _) in found.items()}, defaults, faults
    ).listening()
    if faults:
        raise ConfigError(faults)
    if listening.metrics_endpoint is not None and (place := from_here(listening.metrics_endpoint)) is not None:
        return Door(place)
    if (place := from_here(listening.endpoint)) is not None:
        return Door(place, values["tls_cert"] is not None, values["tls_client_auth"] == Ask.REQUIRED)
    raise Unwell(f"only the daemon knows where {listening.endpoint} is: set metrics_endpoint to a place to ask it at")


def _ask(door: Door, path: str, timeout: float) -> str:
    """Ask once; return the `status` that is answered. Unwell when it is no good answer, or none in time."""
    try:
        return _answered(door, path, timeout)
    except ssl.SSLError as error:
        if not door.certified or error.reason not in _WANTS_CERTIFICATE:
            raise Unwell(f"{door}: {error}") from None
        if path == "/healthz":
            return "it answers, and only to clients with a certificate"
        raise Unwell(f"{door} answers only to clients with a certificate: set metrics_endpoint") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unwell(f"{door}{path}: {cut(str(error) or type(error).__name__, MOST_QUOTED)}") from None


def _answered(door: Door, path: str, timeout: float) -> str:
    connection = http.client.HTTPConnection("localhost")
    with _connected(door, timeout) as connection.sock:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        answer = json.loads(response.read(_MOST_ANSWER))
    if not isinstance(answer, dict):
        raise Unwell(f"{door}{path}: it is not lxdsched that answers")
    if response.status != _OK:
        raise Unwell(f"{door}{path}: {response.status} {answer.get('error')}")
    return str(answer.get("status"))


def _connected(door: Door, timeout: float) -> socket.socket:
    if isinstance(door.place, str):
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(timeout)
        connected.connect(door.place)
    else:
        connected = socket.create_connection(door.place, timeout)
    if not door.secure:
        return connected
    # It is asked by an address that no certificate has to name, is sent no secret, and is believed in nothing else.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connected)
