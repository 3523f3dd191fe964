"""The manager of services that has started us, told by datagrams as sd_notify(3) says. Without one nobody is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from twisted.logger import Logger

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE = "WATCHDOG_PID"
_MICROSECONDS = 1_000_000


class Manager:
    """Who has started us. `watchdog` are the seconds within which it wants to hear that we live; None when it does not.

    `address` is its socket.
    """

    _log = Logger()

    def __init__(self, address: str, watchdog: float | None = None) -> None:
        # One that begins with @ is in Linux' abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog = watchdog
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._failed = False

    def tell(self, assignments: Mapping[str, str]) -> bool:
        """Tell it something, and return whether that has reached it. Nothing is waited for."""
        text = "".join(f"{name}={value}\n" for name, value in assignments.items())
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                self._log.warn("systemd cannot be told how we stand: {reason}", reason=error.strerror or str(error))
            return False
        self._failed = False
        return True


def manager(environment: Mapping[str, str]) -> Manager | None:
    """Find out by the environment who has started us, and whether it wants to hear that we live."""
    address = environment.get(SOCKET_VARIABLE, "")
    return Manager(address, _watchdog(environment)) if address[:1] in {"/", "@"} else None


def _watchdog(environment: Mapping[str, str]) -> float | None:
    if environment.get(WATCHDOG_PID_VARIABLE) not in {None, "", str(os.getpid())}:
        return None  # another process is meant
    within = environment.get(WATCHDOG_VARIABLE, "")
    return int(within) / _MICROSECONDS if within.isascii() and within.isdigit() and int(within) else None
