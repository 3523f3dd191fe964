"""Whether people hear in time that a certificate ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from lxdsched.certificates import Expiry, OurCertificate, Register
from lxdsched.sandbox.certs import KeyPair, make_certificate
from tests.conftest import Logged

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def certificate(
    ends: timedelta, *, use: str = "client_cert", file: str = "a.crt", hosts: tuple[str, ...] = ()
) -> OurCertificate:
    return OurCertificate(use, file, "f" * 64, NOW - 100 * DAY, NOW + ends, hosts)


class Watch:
    """An Expiry on a clock of the test's own; time passes on both of its clocks alike."""

    def __init__(self, *certificates: OurCertificate) -> None:
        self.clock = Clock()
        self.expiry = Expiry(certificates, self.clock, lambda: NOW.timestamp() + self.clock.seconds())

    def pass_days(self, days: float) -> None:
        self.clock.advance(days * 86_400)


def said(logged: Logged) -> list[tuple[str, str]]:
    """Take away and return what was said of certificates: the level and the sentence."""
    found = [(event["log_level"].name, event["log_said"]) for event in logged if "log_said" in event]
    logged.clear()
    return found


@pytest.mark.parametrize(
    ("ends", "state", "days"),
    [
        (30 * DAY + SECOND, "good", 30),
        (30 * DAY, "ending", 30),
        (DAY, "ending", 1),
        (SECOND, "ending", 0),
        (0 * DAY, "ended", 0),
        (-SECOND, "ended", -1),
    ],
)
def test_it_is_ending_for_thirty_days_and_then_has_ended(ends: timedelta, state: str, days: int) -> None:
    ours = certificate(ends)
    assert (ours.state(NOW), ours.days_left(NOW)) == (state, days)


def test_one_that_is_not_valid_yet_is_early() -> None:
    ours = OurCertificate("tls_cert", "a.crt", "f" * 64, NOW + DAY, NOW + 90 * DAY)
    assert ours.state(NOW) == "early"
    assert ours.complaint(NOW) == (
        "tls_cert a.crt is not valid before 2026-06-02T12:00:00+00:00: is the clock of this machine right?"
    )


def test_a_good_one_is_not_worth_a_word(logged: Logged) -> None:
    Watch(certificate(40 * DAY)).expiry.start()
    assert said(logged) == []


def test_what_ends_is_a_warning_at_the_start_and_once_a_day_and_then_an_error(logged: Logged) -> None:
    watch = Watch(certificate(2 * DAY, use="tls_cert"))
    watch.expiry.start()
    assert said(logged) == [("warn", "tls_cert a.crt ends in 2 days, on 2026-06-03: renew it")]
    watch.pass_days(0.9)
    assert said(logged) == []
    watch.pass_days(0.1)
    assert said(logged) == [("warn", "tls_cert a.crt ends in 1 day, on 2026-06-03: renew it")]
    for _ in range(2):
        watch.pass_days(1)
        assert said(logged) == [("error", "tls_cert a.crt has ended on 2026-06-03: renew it")]
    watch.expiry.stop()
    watch.pass_days(3)
    assert said(logged) == []


def test_one_that_is_good_at_the_start_is_a_warning_when_its_time_comes(logged: Logged) -> None:
    watch = Watch(certificate(31 * DAY))
    watch.expiry.start()
    watch.pass_days(1)
    assert [level for level, _ in said(logged)] == ["warn"]


def test_new_ones_are_looked_at_at_once_and_known_ones_are_not_repeated(logged: Logged) -> None:
    old, new = certificate(5 * DAY), certificate(-DAY, file="b.crt")
    watch = Watch(old)
    watch.expiry.certificates = (old,)
    assert said(logged) == []
    watch.expiry.start()
    said(logged)
    watch.expiry.certificates = (old, new)
    assert watch.expiry.certificates == (old, new)
    assert [(level, "b.crt" in sentence) for level, sentence in said(logged)] == [("error", True)]
    watch.expiry.certificates = (certificate(50 * DAY),)
    watch.pass_days(1)
    assert said(logged) == []


def test_what_is_said_names_the_host_or_how_many_there_are_and_what_to_do() -> None:
    assert certificate(-DAY, hosts=("node-1",)).complaint(NOW) == (
        "client_cert a.crt (for node-1) has ended on 2026-05-31: make a new one, add it on the hosts with "
        "`lxc config trust add`, and start again with it"
    )
    assert "a.crt (for 3 hosts) ends in" in str(certificate(DAY, hosts=("a", "b", "c")).complaint(NOW))


def test_the_log_has_the_fingerprint(logged: Logged) -> None:
    Watch(certificate(DAY)).expiry.start()
    (event,) = [event for event in logged if event.get("log_level") is LogLevel.warn]
    assert (event["fingerprint"], event["expires"]) == ("f" * 64, "2026-06-02T12:00:00+00:00")


def made(days: int) -> KeyPair:
    return make_certificate("x", now=NOW, not_before=NOW - DAY, not_after=NOW + days * DAY)


def test_a_file_is_noted_once_a_use_with_the_hosts_that_it_is_for_and_what_ends_first_in_it() -> None:
    register, long, short = Register(), made(90), made(10)
    register.note("client_cert", "a", [long.certificate], "node-1")
    register.note("client_cert", "a", [long.certificate], "node-2")
    register.note("ca", "a", [long.certificate, short.certificate], "node-1")
    register.note("redis_cert", "b", [short.certificate])
    assert [(each.use, each.file, each.fingerprint, each.hosts) for each in register.all()] == [
        ("client_cert", "a", long.fingerprint, ("node-1", "node-2")),
        ("ca", "a", short.fingerprint, ("node-1",)),
        ("redis_cert", "b", short.fingerprint, ()),
    ]
    assert register.all()[0].expires == NOW + 90 * DAY
    assert register.all()[0].starts == NOW - DAY
