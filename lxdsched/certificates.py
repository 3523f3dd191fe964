"""When the certificates end that we come with and verify by: people are told in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel

from lxdsched.spelling import counted
from lxdsched.tls import fingerprint

AHEAD = timedelta(days=30)
"""How long before a certificate ends it is said."""
AGAIN = 86_400
"""Seconds after which it is said again."""

_ADVICE = {
    "client_cert": "make a new one, add it on the hosts with `lxc config trust add`, and start again with it",
    "ca": "until there is a new one, no certificate that it has issued is trusted",
}


@dataclass(frozen=True, slots=True)
class OurCertificate:
    """A certificate in a file of the configuration.

    `use` is the setting that names the file, `hosts` are those that it is for, as configured, if it is for hosts. Where
    a file has several certificates, this is the one that ends first.
    """

    use: str
    file: str
    fingerprint: str
    starts: datetime
    expires: datetime
    hosts: tuple[str, ...] = ()

    def state(self, now: datetime) -> str:
        """Say how it stands: `good`, `ending` within 30 days, `ended`, or `early` where it is not valid yet."""
        if self.expires <= now:
            return "ended"
        if self.starts > now:
            return "early"
        return "ending" if self.expires - now <= AHEAD else "good"

    def days_left(self, now: datetime) -> int:
        """Count the whole days until it ends; below 0 once it has."""
        return (self.expires - now) // timedelta(days=1)

    def complaint(self, now: datetime) -> str | None:
        """Say in a sentence why it is not good and what to do; None when it is."""
        advice = _ADVICE.get(self.use, "renew it")
        match self.state(now):
            case "ended":
                return f"{self._shown} has ended on {_day(self.expires)}: {advice}"
            case "ending":
                return f"{self._shown} ends in {counted(self.days_left(now), 'day')}, on {_day(self.expires)}: {advice}"
            case "early":
                return (
                    f"{self._shown} is not valid before {self.starts.isoformat()}: is the clock of this machine right?"
                )
        return None

    @property
    def _shown(self) -> str:
        whose = f" (for {self.hosts[0]})" if len(self.hosts) == 1 else f" (for {len(self.hosts)} hosts)"
        return f"{self.use} {self.file}{whose if self.hosts else ''}"


class Register:
    """Takes note of the certificates that are in use, each file once a use."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], x509.Certificate] = {}
        self._hosts: dict[tuple[str, str], list[str]] = {}

    def note(self, use: str, file: str, certificates: Sequence[x509.Certificate], host: str | None = None) -> None:
        """Note what a file holds, and for which host it is used."""
        where = (use, file)
        if where not in self._first:
            self._first[where] = min(certificates, key=lambda each: each.not_valid_after_utc)
        if host is not None:
            self._hosts.setdefault(where, []).append(host)

    def all(self) -> tuple[OurCertificate, ...]:
        """Return them, in the order in which they were noted."""
        return tuple(
            OurCertificate(
                use,
                file,
                fingerprint(first),
                first.not_valid_before_utc,
                first.not_valid_after_utc,
                tuple(self._hosts.get((use, file), ())),
            )
            for (use, file), first in self._first.items()
        )


class Expiry:
    """Says in the log which certificates are about to end: at the start, once a day, and of new ones at once.

    `wall` tells the time of day in seconds since the epoch.
    """

    _log = Logger()

    def __init__(self, certificates: Iterable[OurCertificate], clock: IReactorTime, wall: Callable[[], float]) -> None:
        self._certificates = tuple(certificates)
        self._clock = clock
        self._wall = wall
        self._next: IDelayedCall | None = None

    @property
    def certificates(self) -> tuple[OurCertificate, ...]:
        """Those that are in use. They may be replaced at any time."""
        return self._certificates

    @certificates.setter
    def certificates(self, certificates: Iterable[OurCertificate]) -> None:
        known = set(self._certificates)
        self._certificates = tuple(certificates)
        if self._next is not None:
            self._say([each for each in self._certificates if each not in known])

    def start(self) -> None:
        """Say it now, and from now on once a day."""
        self._next = self._clock.callLater(AGAIN, self.start)
        self._say(self._certificates)

    def stop(self) -> None:
        """Say nothing any more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _say(self, certificates: Iterable[OurCertificate]) -> None:
        now = datetime.fromtimestamp(self._wall(), UTC)
        for each in certificates:
            complaint = each.complaint(now)
            if complaint is not None:
                self._log.emit(
                    LogLevel.error if each.state(now) == "ended" else LogLevel.warn,
                    "{log_said}",
                    log_said=complaint,
                    fingerprint=each.fingerprint,
                    expires=each.expires.isoformat(),
                )


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
