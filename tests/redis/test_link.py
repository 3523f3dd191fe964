"""The connection to one Redis: opened, used, and why it cannot be."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import pytest_twisted
from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import Factory, Protocol

from lxdsched.ledger.link import LinkError
from lxdsched.ledger.settings import Account, RedisSettings, TcpAddress, UnixAddress
from tests.redis.linked import COUNT, fault_of, linked, settings
from tests.redis.server import RedisServer, free_port, redis_server
from tests.support import the_reactor

pytestmark = pytest.mark.real_redis

ECHO = b"return {KEYS[1], ARGV[1], ARGV[2], false, {1, 'x'}}"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    users = [
        "joe on >secret ~key* +@all",
        "meek on >secret ~key* +role +script|load +evalsha +eval +incrby",
        "weak on >secret ~key* +role +script|load +evalsha +eval",
        "blind on >secret ~key* +@all -role",
    ]
    with redis_server(password="word", acl=users) as running:
        yield running


@asynccontextmanager
async def saying(words: bytes) -> AsyncIterator[RedisSettings]:
    """Something that is no Redis: it says this when it is spoken to."""

    class Speaker(Protocol):
        def dataReceived(self, data: bytes) -> None:  # noqa: N802
            assert self.transport is not None
            self.transport.write(words)

    endpoint = TCP4ServerEndpoint(cast(IReactorTCP, the_reactor()), 0, interface="127.0.0.1")
    port = await endpoint.listen(Factory.forProtocol(Speaker))
    try:
        yield RedisSettings((TcpAddress("127.0.0.1", cast(IPv4Address, port.getHost()).port),))
    finally:
        await maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_the_script_gets_keys_and_arguments_and_its_answer_comes_back_as_bytes(server: RedisServer) -> None:
    async with linked(server, script=ECHO) as it:
        await it.open()
        assert await it.link.run(["kéy"], [b"\xff\r\n", 12], 5.0) == [
            "kéy".encode(),
            b"\xff\r\n",
            b"12",
            None,
            [1, b"x"],
        ]


@pytest_twisted.ensureDeferred
async def test_runs_that_overlap_are_done_in_order(server: RedisServer) -> None:
    async with linked(server) as it:
        await it.open()
        runs = [it.adding(key="overlap") for _ in range(500)]
        assert [await run for run in runs] == list(range(1, 501))


@pytest_twisted.ensureDeferred
async def test_who_cancels_leaves_the_others_their_own_answers(server: RedisServer) -> None:
    async with linked(server) as it:
        await it.open()
        runs = [it.adding(10**number, key="cancelled") for number in range(6)]
        for number in (0, 2, 5):
            runs[number].addErrback(lambda _failure: None)
            runs[number].cancel()
        assert [await runs[number] for number in (1, 3, 4)] == [11, 1111, 11111]
        assert await it.add(0, key="cancelled") == 111111
        assert it.lost == []


@pytest_twisted.ensureDeferred
async def test_a_script_that_the_server_has_forgotten_is_sent_again(server: RedisServer) -> None:
    async with linked(server) as it:
        await it.open()
        assert await it.add(key="forgotten") == 1
        server.cli("SCRIPT", "FLUSH")
        runs = [it.adding(key="forgotten") for _ in range(3)]
        assert sorted([await run for run in runs]) == [2, 3, 4]
        assert it.lost == []


@pytest_twisted.ensureDeferred
async def test_it_reaches_a_unix_socket_and_a_database_of_its_own() -> None:
    with redis_server(unix=True) as server:
        async with linked(settings(f"{server.url}?db=3")) as it:
            await it.open()
            assert await it.add(7) == 7
        assert "db3:keys=1" in server.cli("INFO", "keyspace")


@pytest_twisted.ensureDeferred
async def test_it_reaches_a_name_and_an_ipv6_address(server: RedisServer) -> None:
    with redis_server(host="::1") as sixth:
        async with linked(sixth) as it:
            await it.open()
            assert await it.add() == 1
    async with linked(settings(f"redis://localhost:{server.port}")) as it:
        await it.open()
        assert await it.add(key="by name") == 1


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("account", [Account(None, "word"), Account("joe", "secret"), Account("meek", "secret")])
async def test_it_says_who_it_is(account: Account, guarded: RedisServer) -> None:
    async with linked(settings(guarded.url, account=account)) as it:
        await it.open()
        assert await it.add(0) == 0


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("account", "why"),
    [
        (Account(), "{0} wants a password, and none is set"),
        (Account(None, "wrong"), "{0} refuses the user or the password"),
        (Account("nobody", "word"), "{0} refuses the user or the password"),
        (Account("blind", "secret"), "{0} answers: NOPERM this user has no permissions to run the 'role' command"),
    ],
)
async def test_who_may_not_come_in_is_told_so(account: Account, why: str, guarded: RedisServer) -> None:
    assert await fault_of(settings(guarded.url, account=account)) == why.format(guarded.address)


@pytest_twisted.ensureDeferred
async def test_a_user_who_may_not_do_what_the_script_does_is_told_so(guarded: RedisServer) -> None:
    async with linked(settings(guarded.url, account=Account("weak", "secret"))) as it:
        await it.open()
        why = await it.failure()
        assert "can't run this command" in why
        assert it.lost == [why]


@pytest_twisted.ensureDeferred
async def test_a_password_where_none_is_wanted_is_a_fault(server: RedisServer) -> None:
    assert await fault_of(settings(server.url, account=Account(None, "hunter2"))) == (
        f"{server.address} has no password, and one is set"
    )


@pytest_twisted.ensureDeferred
async def test_a_server_that_repeats_the_password_is_not_quoted() -> None:
    with redis_server(options={"rename-command": 'AUTH ""'}) as server:
        why = await fault_of(settings(server.url, account=Account("joe", "hunter2")))
        assert why == f"{server.address} does not let us say who we are"


@pytest_twisted.ensureDeferred
async def test_a_database_that_there_is_not_is_a_fault(server: RedisServer) -> None:
    assert await fault_of(settings(f"{server.url}/99")) == f"{server.address} answers: ERR DB index is out of range"


@pytest_twisted.ensureDeferred
async def test_a_script_that_cannot_be_read_is_a_fault(server: RedisServer) -> None:
    async with linked(server, script=b"return (") as it:
        assert "Error compiling script" in await it.fault()


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_a_fault() -> None:
    port = free_port()
    assert f"no connection to 127.0.0.1:{port}: " in await fault_of(settings(f"redis://127.0.0.1:{port}"))
    assert "no connection to /nowhere: " in await fault_of(RedisSettings((UnixAddress("/nowhere"),)))
    assert "no connection to no.invalid:6379: " in await fault_of(settings("redis://no.invalid"))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the protocol of Redis"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "does not speak the protocol of Redis"),
        (b"+OK\r\n", "does not say that it is a primary"),
        (b"*1\r\n$-1\r\n", "does not say that it is a primary"),
        (b"*1\r\n$5\r\nslave\r\n", "is a replica, and no primary"),
        (b"*1\r\n$8\r\nsentinel\r\n", "is a Sentinel, and no server"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "is still loading its data"),
        (b"-ERR max number of clients reached\r\n", "answers: ERR max number of clients reached"),
    ],
)
async def test_what_is_no_primary_is_a_fault(words: bytes, why: str) -> None:
    async with saying(words) as found:
        assert await fault_of(found) == f"{found.addresses[0]} {why}"


@pytest_twisted.ensureDeferred
async def test_a_server_that_ends_the_connection_at_once_is_a_fault() -> None:
    with redis_server(options={"maxclients": "1"}) as server:
        keep = socket.create_connection((server.host, server.port))
        try:
            why = await fault_of(server)
        finally:
            keep.close()
    assert why in {
        f"{server.address} answers: ERR max number of clients reached",
        f"{server.address} has closed the connection",
    }


@pytest_twisted.ensureDeferred
async def test_it_can_be_closed_and_opened_again(server: RedisServer) -> None:
    async with linked(server) as it:
        with pytest.raises(LinkError):
            await it.add(key="again")
        await it.open()
        run = it.adding(key="again")
        it.link.close()
        with pytest.raises(LinkError):
            await run
        assert await it.failure(key="again") == "there is no connection to Redis"
        await it.open()
        await it.open()  # the connection before is closed, and not lost
        assert await it.add(key="again") >= 1
        assert it.lost == []


@pytest_twisted.ensureDeferred
async def test_it_knows_one_run_of_a_server_from_another(guarded: RedisServer) -> None:
    with redis_server() as server:
        async with linked(server) as it:
            await it.open()
            first = it.link.server
            assert f"run_id:{first}\r" in server.cli("INFO", "server")
            await it.open()
            assert it.link.server == first
            server.restart()
            await it.open()
            assert it.link.server != first
    async with linked(settings(guarded.url, account=Account("meek", "secret"))) as it:
        await it.open()
        first = it.link.server
        await it.open()
        assert it.link.server != first  # who may not know takes it for another one


@pytest_twisted.ensureDeferred
async def test_no_more_than_one_connection_is_left_on_the_server(server: RedisServer) -> None:
    async with linked(server, script=COUNT) as it:
        for _ in range(3):
            await it.open()
        await it.add(key="once")
        assert server.cli("INFO", "clients").count("connected_clients:2") == 1  # and the one that asks
