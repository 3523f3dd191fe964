"""How the daemon and the store are kept of one mind, whatever becomes of the store."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue

import pytest
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from lxdsched.sandbox.certs import KeyPair, make_certificate
from lxdsched.tls import CertificateRefused
from lxdsched.trust import records
from lxdsched.trust.directory import StoreError
from lxdsched.trust.file import TrustFile
from lxdsched.trust.keeper import GRACE, LOOK, OFFERS, RETRY, Keeper
from lxdsched.trust.records import Hosts, Known
from lxdsched.trust.use import RememberedUse
from tests.conftest import Logged

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
URL, OTHER = "https://node-1:8443", "https://node-2:8443"
ONE, TWO, THREE = (make_certificate("node-1", now=NOW) for _ in range(3))


class World:
    """A keeper on a clock of its own. What it does aside is waited for, so nothing here depends on the time."""

    def __init__(self, directory: Path) -> None:
        self.file = TrustFile(str(directory))
        self.clock = Clock()
        self.changed: list[str] = []
        self._done: Queue[Callable[[], object]] = Queue()
        self.keeper = self.make()

    def make(self) -> Keeper:
        return Keeper(TrustFile(self.file.directory), self.clock, self._done.put, NOW.timestamp)

    def started(self) -> World:
        self.keeper.start()
        return self

    def restart(self) -> World:
        self.stop()
        self.keeper = self.make()
        return self.started()

    def stop(self) -> None:
        stopping = Deferred.fromCoroutine(self.keeper.stop())
        while not stopping.called:
            self._done.get(timeout=60)()
        assert self.clock.getDelayedCalls() == []

    def wait(self, seconds: float = 0) -> None:
        """Let this time go by, and all that is to be done in it."""
        end = self.clock.seconds() + seconds
        while True:
            self.settle()
            due = min((call.getTime() for call in self.clock.getDelayedCalls()), default=end)
            if due > end:
                break
            self.clock.advance(max(due - self.clock.seconds(), 0))
        self.clock.advance(end - self.clock.seconds())
        self.settle()

    def settle(self) -> None:
        while self.keeper._round is not None:
            self._done.get(timeout=60)()

    def use(self, url: str = URL) -> RememberedUse:
        self.keeper.watch(url, lambda: self.changed.append(url))
        return RememberedUse(self.keeper, url, url)

    def shows(self, pair: KeyPair, url: str = URL) -> None:
        """Have a handshake with a host that shows this certificate."""
        use = self.use(url)
        use.check(pair.certificate, "x", None)
        use.proven(pair.certificate)

    def refuses(self, pair: KeyPair, url: str = URL) -> str:
        with pytest.raises(CertificateRefused) as caught:
            self.shows(pair, url)
        assert isinstance(caught.value, SSL.Error)
        return str(caught.value)

    def stored(self) -> Hosts:
        return TrustFile(self.file.directory).read() or {}

    def accept(self, pair: KeyPair, url: str = URL) -> None:
        TrustFile(self.file.directory).update(lambda hosts: records.accept(hosts or {}, url, pair.fingerprint, NOW))

    def forget(self, url: str = URL) -> None:
        TrustFile(self.file.directory).update(lambda hosts: records.forget(hosts or {}, url))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "state").started()
    yield made
    made.stop()


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond a few bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_first_certificate_is_remembered_across_a_restart(world: World, logged: Logged) -> None:
    world.shows(ONE)
    world.wait()
    assert world.stored() == {URL: Known(ONE.fingerprint, NOW, "first_use")}
    assert logged.messages(LogLevel.warn) == [
        f"host {URL} is trusted on first use, and {world.file.path} remembers it; "
        f"to pin it, set its fingerprint to {ONE.fingerprint}"
    ]
    world.restart()
    world.shows(ONE)
    assert world.refuses(TWO) == (
        f"its certificate has changed: it shows {TWO.fingerprint}, trusted is {ONE.fingerprint}; "
        f"if the change was meant, `lxdsched trust accept {URL}`"
    )
    assert len(logged.messages(LogLevel.warn)) == 1


def test_what_is_read_at_the_start_is_no_change(world: World) -> None:
    world.shows(ONE)
    world.stop()
    world.keeper = world.make()
    world.use()
    world.started()
    world.wait(LOOK)
    assert world.changed == []


def test_only_what_the_host_has_the_key_of_is_remembered(world: World) -> None:
    world.use().check(ONE.certificate, "x", None)
    world.wait(LOOK)
    assert world.stored() == {}


def test_of_two_first_handshakes_at_the_same_time_one_is_first(world: World) -> None:
    use = world.use()
    use.check(ONE.certificate, "x", None)
    use.check(TWO.certificate, "x", None)
    use.proven(ONE.certificate)
    assert ONE.fingerprint in world.refuses(TWO)


def test_a_first_use_just_before_the_end_is_written(world: World) -> None:
    world.shows(ONE)
    world.restart()
    assert ONE.fingerprint in world.refuses(TWO)


def test_before_anything_was_read_nobody_is_trusted(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert "has not been read yet" in world.refuses(ONE)


def test_what_a_host_shows_instead_is_kept_for_a_person(world: World) -> None:
    world.shows(ONE)
    world.refuses(TWO)
    world.wait()
    waiting = world.stored()[URL].offered
    assert waiting is not None
    assert (waiting.fingerprint, waiting.at, waiting.names) == (TWO.fingerprint, NOW, ("node-1",))
    assert waiting.subject == "CN=root@node-1,O=linuxcontainers.org"
    assert waiting.not_after == TWO.certificate.not_valid_after_utc


def test_what_a_person_accepts_is_taken_over_without_a_restart(world: World, logged: Logged) -> None:
    world.shows(ONE)
    world.refuses(TWO)
    world.wait()
    world.accept(TWO)
    world.wait(LOOK)
    assert world.changed == [URL]
    assert logged.messages(LogLevel.info) == [
        f"host {URL} is trusted by {TWO.fingerprint} from now on, as {world.file.path} says"
    ]
    world.shows(TWO)
    assert TWO.fingerprint in world.refuses(ONE)


def test_what_is_accepted_in_advance_is_all_that_will_do(world: World) -> None:
    world.accept(TWO)
    world.wait(LOOK)
    world.refuses(ONE)
    world.shows(TWO)


def test_a_host_that_was_forgotten_is_met_for_the_first_time_again(world: World, logged: Logged) -> None:
    world.shows(ONE)
    world.shows(ONE, OTHER)
    world.wait()
    world.refuses(TWO)  # known, and not written yet
    world.forget()
    world.wait(LOOK)
    assert world.changed == [URL]
    assert logged.messages(LogLevel.info) == [
        f"host {URL} is forgotten in {world.file.path}: the next certificate counts"
    ]
    world.shows(TWO)
    world.wait()
    assert {url: known.fingerprint for url, known in world.stored().items()} == {
        URL: TWO.fingerprint,
        OTHER: ONE.fingerprint,
    }


def test_a_new_certificate_at_each_connection_costs_few_writes_and_no_space(world: World) -> None:
    world.shows(ONE)
    world.wait()
    stamps = set()
    pairs = [TWO, THREE]
    for number in range(400):
        world.refuses(pairs[number % 2])
        world.wait(0.1)
        stamps.add(world.file.stamp())
    assert len(stamps) <= 40 / OFFERS + 1
    world.wait(OFFERS)
    waiting = world.stored()[URL].offered
    assert waiting is not None
    assert waiting.fingerprint == THREE.fingerprint
    assert os.stat(world.file.path).st_size < 1000


def test_many_hosts_that_are_met_at_once_are_written_at_once(world: World) -> None:
    stamps = set()
    for number in range(100):
        world.shows(ONE, f"https://node-{number}:8443")
    world.clock.advance(0)
    while world.keeper._round is not None:
        stamps.add(world.file.stamp())
        world._done.get(timeout=60)()
    assert len(stamps) <= 2
    assert len(world.stored()) == 100


def test_two_daemons_on_one_store_agree(world: World) -> None:
    other = World(Path(world.file.directory)).started()
    world.shows(ONE)
    other.shows(TWO)
    world.wait()
    other.wait()
    assert other.changed == [URL]
    other.refuses(TWO)
    other.shows(ONE)
    other.shows(TWO, OTHER)
    other.wait()
    world.wait(LOOK)
    world.refuses(ONE, OTHER)
    other.stop()


@pytest.mark.parametrize("damage", [b"", b'{"version":2}', b"x"])
def test_damage_changes_nothing_of_what_is_known_and_lets_nobody_else_in(
    world: World, damage: bytes, logged: Logged
) -> None:
    world.shows(ONE)
    world.wait()
    good = Path(world.file.path).read_bytes()
    Path(world.file.path).write_bytes(damage)
    world.wait(20 * LOOK)
    world.shows(ONE)
    world.refuses(TWO)
    assert world.refuses(TWO, OTHER).startswith(
        f"it shows {TWO.fingerprint}, and it cannot be known whether that was its certificate before: "
        f"{world.file.path}: "
    )
    world.wait(2 * RETRY)
    assert Path(world.file.path).read_bytes() == damage
    (message,) = logged.messages(LogLevel.error)
    assert message.startswith(
        f"who is trusted cannot be read, and hosts that are not known are refused: {world.file.path}: "
    )
    with pytest.raises(StoreError):
        world.make().start()
    Path(world.file.path).write_bytes(good)
    world.wait(RETRY)
    assert f"{world.file.path} can be read again" in logged.messages(LogLevel.info)
    world.shows(TWO, OTHER)
    world.wait()
    waiting = world.stored()[URL].offered
    assert waiting is not None
    assert waiting.fingerprint == TWO.fingerprint


@pytest.mark.parametrize("also", ["file", "directory"])
def test_what_vanishes_is_written_again(world: World, also: str, logged: Logged) -> None:
    world.shows(ONE)
    world.refuses(TWO)
    world.wait()
    before = world.stored()
    for path in Path(world.file.directory).iterdir():
        path.unlink()
    if also == "directory":
        os.rmdir(world.file.directory)
    world.wait(LOOK)
    assert logged.messages(LogLevel.error) == [f"{world.file.path} is gone; it is written again from what is known"]
    assert world.stored() == before
    world.refuses(TWO)


def test_what_vanishes_just_before_something_is_written_is_written_with_it(world: World) -> None:
    world.shows(ONE)
    world.wait()
    os.unlink(world.file.path)
    world.shows(TWO, OTHER)
    world.wait()
    assert set(world.stored()) == {URL, OTHER}


def test_a_full_disk_is_told_once_and_tried_again(world: World, logged: Logged) -> None:
    with full_disk():
        world.shows(ONE)
        world.wait(3 * RETRY)
        world.shows(ONE)
        world.refuses(TWO)
    assert logged.messages(LogLevel.error) == [
        f"who is trusted cannot be remembered: {world.file.path}: File too large"
    ]
    assert world.stored() == {}
    world.wait(RETRY)
    assert world.stored()[URL].fingerprint == ONE.fingerprint
    assert logged.messages(LogLevel.info) == [f"{world.file.path} can be written again"]


def test_a_full_disk_does_not_keep_the_daemon_from_ending(world: World, logged: Logged) -> None:
    world.shows(ONE)
    with full_disk():
        world.stop()
    assert logged.messages(LogLevel.error) == [
        f"who is trusted could not be remembered: {world.file.path}: File too large"
    ]


@contextmanager
def locked(world: World) -> Iterator[None]:
    with open(f"{world.file.directory}/trust.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_lock_that_is_held_for_long_is_told_and_tried_again(world: World, logged: Logged) -> None:
    with locked(world):
        world.shows(ONE)
        world.wait(9)
        assert logged.messages(LogLevel.error) == []
        world.wait(20)
        (message,) = logged.messages(LogLevel.error)
        assert "trust.lock: another process has locked it, for 10 seconds or more" in message
        world.shows(ONE)
        world.refuses(TWO)
    world.wait(1)
    assert world.stored()[URL].fingerprint == ONE.fingerprint


def test_a_lock_that_is_held_does_not_keep_the_daemon_from_ending(world: World, logged: Logged) -> None:
    with locked(world):
        world.shows(ONE)
        stopping = Deferred.fromCoroutine(world.keeper.stop())
        for _ in range(int(GRACE / 0.25)):
            world._done.get(timeout=60)()
            world.clock.advance(0.25)
        assert stopping.called
    (message,) = logged.messages(LogLevel.error)
    assert message == f"{world.file.path} was not written in time: what was new in it is forgotten"


def test_a_disk_that_hangs_keeps_nobody_from_deciding_or_ending(world: World, logged: Logged) -> None:
    world.shows(ONE)
    world.clock.advance(0)  # it is being written, and that does not end
    world.shows(ONE)
    world.refuses(TWO)
    stopping = Deferred.fromCoroutine(world.keeper.stop())
    world.clock.advance(GRACE)
    assert stopping.called
    assert len(logged.messages(LogLevel.error)) == 1
    world.settle()
