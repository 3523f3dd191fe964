"""The ledger's script on a Redis into which somebody else has written."""

from __future__ import annotations

import socket
from typing import Any

import hiredis
import msgspec
import pytest

from lxdsched.ledger import records
from lxdsched.ledger.exchange import script
from lxdsched.ledger.presence import SETTLING
from lxdsched.ledger.records import KEYS, Reply
from tests.conftest import Logged
from tests.ledger.bench import at_once
from tests.ledger.replica import Replica
from tests.ledger.stopped import StoppedRedis
from tests.redis.server import RedisServer

pytestmark = pytest.mark.real_redis

NAMES = records.keys("fuzz")
REST = msgspec.json.encode(
    {"candidates": ["a"], "by": "x", "demand": {"request_id": "7", "pool": {"image_alias": "u"}}}
)[1:]
KIND = b'{"image_alias":"u"}'

RESERVE = ["r1", 60000, "7", 0, 1000, 1024, KIND, REST, 1, "a", 8000, 1 << 40, 1, 0, 0, 0, 0]
CALLS: list[list[Any]] = [
    ["sync"],
    ["reserve", *RESERVE],
    ["reserve", "r2", 60000, "", 0, 1000, 1024, KIND, REST, 1, "a", 8000, 1 << 40, 1, 0, 0, 0, 1, "r1", "p/x"],
    ["see", "a", -1, 1, "r2", "p/y"],
    ["see", "a", 1, 1, "r2", "p/y"],
    ["release", 1, "r2", 60000, 1],
    ["join", "other", "run", 1, "r3", 60000, 1, 1, "r4", 60000, 0, "8", "p/z", "a", 1000, 1024, "false", REST],
]

GOOD = b'{"expires":%d,"cpu":1000,"memory":1024,"promised":true,"created":1,"host":"a",' % (1 << 42)
TEXTS = [
    b"",
    b"\xff\x00",
    b"null",
    b"[]",
    b"{",
    b"{}",
    GOOD,
    GOOD + b'"candidates":[]}',
    GOOD + b'"demand":7}',
    GOOD + b'"demand":{"pool":7}}',
    GOOD + b'"demand":{"pool":{"image_alias":[]}}}',
    GOOD + b'"demand":{}}',
    GOOD.replace(b'"host":"a"', b'"host":7') + b'"demand":{}}',
    GOOD.replace(b"1000", b"9" * 400) + REST,
    GOOD.replace(b":4398", b":" + b"9" * 400) + REST,
    b'{"a":' * 2000,
    b"[" * 100_000,
    b"nan",
    b"1e400",
    b"-1",
    b"9" * 400,
]


class Redis:
    """A Redis with one reservation in it."""

    def __init__(self, server: RedisServer) -> None:
        self._line = socket.create_connection((server.host, server.port), timeout=30)
        self._reader = hiredis.Reader(notEnoughData=self)
        self.ask("FLUSHALL")
        self.epoch = b""
        self.epoch = self.call("join", "epoch", "run", 0, 0)[0]
        self.call("reserve", *RESERVE)

    def ask(self, *words: Any) -> Any:
        self._line.sendall(hiredis.pack_command(words))
        while (said := self._reader.gets()) is self:
            self._reader.feed(self._line.recv(1 << 16))
        return said

    def call(self, operation: str, *arguments: Any) -> Any:
        return self.ask("EVAL", script(), len(NAMES), *NAMES, operation, self.epoch, 0, *arguments)

    def close(self) -> None:
        self._line.close()


@pytest.fixture
def disturbed(redis: RedisServer) -> Any:
    disturbed = Redis(redis)
    yield disturbed
    disturbed.close()


def readable(said: Any) -> Reply | None:
    """Read an answer as a replica does, with all records in it."""
    if isinstance(said, hiredis.ReplyError):
        return None
    try:
        reply = records.read_reply(said)
        for host in reply.hosts:
            for entry in host.entries:
                records.read(entry, 0.0, reply.time)
    except records.RecordError:
        return None
    return reply


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:40]))
def test_a_record_that_is_none_keeps_nobody_from_reserving(disturbed: Redis, text: bytes) -> None:
    disturbed.ask("HSET", NAMES[KEYS.index("records")], "r1", text)
    for call in CALLS:
        said = disturbed.call(*call)
        assert not isinstance(said, hiredis.ReplyError), (call[0], said)
        assert records.read_reply(said).outcome


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("text", [b"", b"x", b"-1", b"nan", b"1e400", b"9" * 400, b"a b\nc\xff", b"[" * 10_000])
def test_whatever_a_key_holds_the_script_answers(disturbed: Redis, key: str, text: bytes) -> None:
    name = NAMES[KEYS.index(key)]
    kind = disturbed.ask("TYPE", name)
    fields = [b"a", b"r1", b"7", b"x", b"epoch", b"version", b"run", b"founded", b"\xff\x00"]
    for field in fields:
        if kind == b"zset":
            disturbed.ask("ZADD", name, 1e300 if text == b"1e400" else -5, text)
        elif field != b"epoch":
            disturbed.ask("HSET", name, field, text)
    for call in CALLS:
        readable(disturbed.call(*call))
    assert disturbed.ask("PING") == b"PONG"


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_another_type_is_an_error_and_no_answer(disturbed: Redis, key: str) -> None:
    name = NAMES[KEYS.index(key)]
    disturbed.ask("DEL", name)
    disturbed.ask("SET", name, "x")
    for call in CALLS:
        readable(disturbed.call(*call))
    assert disturbed.ask("PING") == b"PONG"


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:40]))
def test_replicas_go_on_to_share_beside_a_record_that_is_none(redis: RedisServer, text: bytes, logged: Logged) -> None:
    stopped = StoppedRedis(redis)
    replicas = [Replica(stopped), Replica(stopped)]
    for each in replicas:
        each.ledger.start()
    stopped.advance(SETTLING)
    first = replicas[0].placed(1, request_id="7")
    with socket.create_connection((redis.host, redis.port), timeout=30) as line:
        line.sendall(hiredis.pack_command(("HSET", "{test}:records", first.id, text)))  # type: ignore[arg-type]
        assert line.recv(100) == b":0\r\n"
    newcomer = Replica(stopped)
    newcomer.ledger.start()
    for each in [*replicas, newcomer]:
        made = each.ask(1)
        assert made.ended
        assert made.error is None
        assert made.made is not None
        assert not each.ledger.degraded
    for each in [*replicas, newcomer]:
        at_once(each.ledger.stop())
    assert not logged.failures()
