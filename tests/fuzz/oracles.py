"""What must hold of each parser for any bytes at all. Hypothesis and atheris both feed these."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import msgspec
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from lxdsched import logs
from lxdsched.config import SETTINGS, Config, ConfigError, Sources, load
from lxdsched.config.hosts import address
from lxdsched.config.redis import parse_addr, parse_url
from lxdsched.config.values import Fault
from lxdsched.ledger import records
from lxdsched.ledger.mirror import Mirror
from lxdsched.ledger.picture import Picture
from lxdsched.ledger.records import Entry, HostState, RecordError, Reply
from lxdsched.limits import LimitError, allowance_share, cpu_share, memory_share, parse_size
from lxdsched.model import Reservation
from lxdsched.tls import FirstUse, HostPolicy
from lxdsched.web.errors import ApiError
from lxdsched.web.requests import MOST_CORES, MOST_MEMORY, ScheduleRequest, read_schedule

STRATEGIES = ("least-allocated", "balanced")
CPUS = frozenset(range(16))

MOST_SAID = 1500
"""Characters of a sentence that says what is wrong: a quoted text of 80 characters may be ten times as long."""
MOST_ECHO = 4096
"""Bytes of an answer's ignored fields."""
MOST_VALUE = 6 * (logs.MOST_FIELD + 5)
"""Characters of one field's value: JSON writes some of them as six."""
MOST_LINE = 6 * (logs.MOST_FIELDS * (logs.MOST_FIELD + logs.MOST_KEY) + logs.MOST_MESSAGE + 2 * logs.MOST_TRACEBACK)
"""Characters of a line of the log."""


@contextmanager
def cpu_seconds(most: float = 60.0) -> Iterator[None]:
    """Fail what takes this much of the processor: thousands of times of what it should, however busy the machine."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"it still computes after {most:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, most)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def request(body: bytes) -> ScheduleRequest | None:
    """Read a request: a demand that makes sense, or a refusal that is short."""
    try:
        asked = read_schedule(body)
    except ApiError as error:
        assert (error.status, error.code) == (400, "invalid_request")
        assert len(error.message) <= MOST_SAID
        error.body()
        return None
    assert 1000 <= asked.demand.resources.cpu <= MOST_CORES * 1000
    assert 1 <= asked.demand.resources.memory <= MOST_MEMORY
    assert type(asked.demand.resources.cpu) is type(asked.demand.resources.memory) is int
    assert asked.demand.targets is None or asked.demand.targets
    assert len(msgspec.json.encode(asked.ignored)) <= MOST_ECHO
    return asked


def limits(text: str) -> dict[str, int | None]:
    """Read a text as each kind of limit; leave out the kinds that it is no limit of."""
    readers = {
        "size": parse_size,
        "memory": lambda value: memory_share(value, 16 << 30),
        "cpu": lambda value: cpu_share(value, CPUS),
        "allowance": allowance_share,
    }
    found: dict[str, int | None] = {}
    for name, read in readers.items():
        try:
            found[name] = read(text)
        except LimitError as error:
            assert len(str(error)) <= MOST_SAID
    assert 1000 <= (found.get("cpu") or 1000) <= len(CPUS) * 1000
    return found


def configuration(sources: Sources, *secrets: str) -> Config | None:
    """Load a configuration: a whole one, or faults that are few, short, on one line each and tell no secret."""
    try:
        config = load(sources, STRATEGIES)
    except ConfigError as error:
        assert error.faults
        assert len(error.faults) <= 101
        for fault in error.faults:
            assert len(fault) <= MOST_SAID
            assert fault.isprintable()
            assert not any(secret in fault for secret in secrets)
        return None
    for host in config.hosts:
        HostPolicy(host.identity, host.trust or FirstUse(), "localhost")
    return config


def toml(content: bytes, path: Path, *secrets: str) -> Config | None:
    """Load a configuration from a file of these bytes."""
    path.write_bytes(content)
    return configuration(Sources(file=str(path)), *secrets)


def variable(number: int, value: str) -> Config | None:
    """Load a configuration from one environment variable, of all that there are."""
    names = [setting.variable for setting in SETTINGS] + ["REDIS_ADDR"]
    if "\0" in value:  # no environment has one
        return None
    return configuration(Sources(environment={names[number % len(names)]: value}))


def urls(text: str) -> None:
    """Read a text as the address of a host, as the URL of a Redis and as its address."""
    for read in (address, parse_url, parse_addr):
        try:
            read(text)
        except Fault as fault:
            assert len(str(fault)) <= MOST_SAID


def event(logged: LogEvent) -> None:
    """Render an event: one JSON object, and lines of a terminal of which none but the first begins at the margin."""
    line = logs.as_json(logged)
    assert "\n" not in line
    assert len(line) <= MOST_LINE
    said = json.loads(line)
    assert {"time", "level", "msg"} <= said.keys()
    for key in said.keys() - {"msg", "traceback"}:
        assert len(json.dumps(said[key], ensure_ascii=False)) <= MOST_VALUE
    first, *more = logs.as_text(logged).split("\n")
    assert all(each.isprintable() for each in (first, *more))
    assert all(each.startswith("  ") for each in more)
    assert sum(map(len, (first, *more))) <= MOST_LINE


def record(content: bytes) -> Reservation | None:
    """Read what is found in Redis in place of a record: a reservation that claims something, or a short complaint."""
    try:
        found = records.read(Entry("x", content, None), 1000.0, 1_000_000)
    except RecordError as error:
        assert len(str(error)) <= MOST_SAID
        return None
    assert found.resources.cpu >= 0
    assert found.resources.memory >= 0
    assert found.created_at <= found.expires_at
    return found


def mirrored(contents: list[bytes], label: str | None = None) -> Picture:
    """Take records into a picture, as the script would list them on the host `a`; nothing of them breaks it."""
    clock = Clock()
    picture = Picture(clock)
    mirror = Mirror(clock, picture, 120)
    entries = [Entry(str(number), content, label) for number, content in enumerate(contents)]
    for version in (1, 2):
        mirror.apply(Reply("e", version, 1000, "synced", "", [HostState("a", version, entries)]))
        claims = picture.claims("a").resources
        assert claims.cpu >= 0
        assert claims.memory >= 0
        assert all(each.host == "a" for each in picture.all())
    picture.stop()
    return picture


def reply(said: object) -> Reply | None:
    """Read what may be the script's answer."""
    try:
        found = records.read_reply(said)
    except RecordError as error:
        assert len(str(error)) <= MOST_SAID
        return None
    with suppress(ValueError):
        assert isinstance(found.founded, int)
    return found
