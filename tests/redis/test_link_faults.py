"""What becomes of the connection when Redis hangs, dies, or does not do what it is told."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater

from lxdsched.ledger.link import LinkError
from tests.redis.linked import fault_of, linked, settings
from tests.redis.server import free_port, redis_server
from tests.support import eventually, the_reactor

pytestmark = pytest.mark.real_redis


@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_costs_its_deadline_and_the_connection() -> None:
    clock = Clock()
    with redis_server() as server:
        async with linked(server, clock=clock) as it:
            await it.open()
            server.suspend()
            patient, hasty = it.adding(timeout=1.0), it.adding(timeout=0.25)
            order: list[str] = []
            it.link._lost = order.append
            patient.addErrback(lambda failure: order.append(f"patient: {failure.value}"))
            hasty.addErrback(lambda failure: order.append(f"hasty: {failure.value}"))
            clock.advance(0.24)
            assert order == []
            clock.advance(0.02)
            why = f"{server.address} did not answer within 0.25 s"
            assert order == [why, f"patient: {why}", f"hasty: {why}"]
            assert await it.failure() == "there is no connection to Redis"
            assert clock.getDelayedCalls() == []
            server.resume()
            await it.open()
            assert await it.add() >= 1
            assert order == order[:3]


@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_is_not_opened_for_longer_than_it_may_take() -> None:
    with redis_server() as server:
        server.suspend()
        async with linked(server) as it:
            began = the_reactor().seconds()
            assert await it.fault(0.1) == f"{server.address} did not answer within 0.1 s"
            assert the_reactor().seconds() - began < 1


@pytest_twisted.ensureDeferred
async def test_opening_can_be_cancelled_and_closed() -> None:
    with redis_server() as server:
        server.suspend()
        async with linked(server) as it:
            opening = Deferred.fromCoroutine(it.open())
            await deferLater(the_reactor(), 0.02)
            opening.cancel()
            with pytest.raises(CancelledError):
                await opening
            opening = Deferred.fromCoroutine(it.open())
            it.link.close()
            with pytest.raises(LinkError, match="it was closed"):
                await opening
            server.resume()
            await it.open()
            assert await it.add() == 1


@pytest_twisted.ensureDeferred
async def test_a_server_that_dies_is_lost_though_nobody_waits_for_it() -> None:
    with redis_server() as server:
        async with linked(server) as it:
            await it.open()
            server.kill()
            await eventually(lambda: it.lost == [f"{server.address} has closed the connection"])
            assert await it.failure() == "there is no connection to Redis"
            assert "no connection to" in await it.fault()
            server.start()
            await it.open()
            assert await it.add() == 1
            assert len(it.lost) == 1


@pytest_twisted.ensureDeferred
async def test_a_run_that_is_under_way_when_the_server_dies_fails() -> None:
    with redis_server() as server:
        async with linked(server) as it:
            await it.open()
            server.suspend()
            run = it.adding()
            await deferLater(the_reactor(), 0.01)
            server.kill()
            with pytest.raises(LinkError, match="has closed the connection"):
                await run
            assert len(it.lost) == 1


@pytest_twisted.ensureDeferred
async def test_a_replica_is_refused_and_a_primary_that_becomes_one_is_lost() -> None:
    with redis_server() as primary, redis_server(replica_of=primary) as replica:
        assert await fault_of(replica) == f"{replica.address} is a replica, and no primary"
        async with linked(settings(replica.url, primary.url)) as it:
            await it.open()
            assert await it.add() == 1
            await eventually(lambda: bool(replica.cli("GET", "key") == "1"))
            replica.cli("REPLICAOF", "NO", "ONE")
            primary.cli("REPLICAOF", replica.host, replica.port)
            # A server that becomes a replica drops its clients, or refuses them.
            await it.failure()
            assert len(it.lost) == 1
            await it.open()
            assert await it.add() == 2
        assert replica.cli("GET", "key") == "2"


@pytest_twisted.ensureDeferred
async def test_of_several_servers_the_first_that_can_be_used_is_used() -> None:
    with redis_server() as hung, redis_server() as second, redis_server() as third:
        hung.suspend()
        dead = f"redis://127.0.0.1:{free_port()}"
        async with linked(settings(dead, hung.url, second.url, third.url)) as it:
            await it.open(0.6)
            assert await it.add() == 1
        assert (second.cli("GET", "key"), third.cli("GET", "key")) == ("1", None)
        async with linked(settings(dead, hung.url)) as it:
            why = await it.fault(0.2)
        assert why.startswith(f"no connection to {dead.removeprefix('redis://')}: ")
        assert f"; {hung.address} did not answer within 0." in why


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), "has no memory left to write (maxmemory)"),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), "takes no writes, because it has too few replicas"),
        (("SET", "key", "text"), "answers: ERR value is not an integer or out of range"),
    ],
)
async def test_an_error_for_an_answer_loses_the_connection(command: tuple[str, ...], why: str) -> None:
    with redis_server() as server:
        async with linked(server) as it:
            await it.open()
            server.cli(*command)
            other = it.adding(key="other")
            other.addErrback(lambda _failure: None)
            assert (await it.failure()).startswith(f"{server.address} {why}")
            assert len(it.lost) == 1
            assert it.lost[0].startswith(f"{server.address} {why}")
            await other


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_busy_with_somebodys_script_is_lost() -> None:
    with redis_server(options={"busy-reply-threshold": "10"}) as server:
        async with linked(server) as it:
            await it.open()
            with pytest.raises(TimeoutError):
                server.cli("EVAL", "while true do end", 0, timeout=0.1)
            assert await it.failure() == f"{server.address} is busy with somebody's script"
            assert await it.fault() == f"{server.address} is busy with somebody's script"
            server.cli("SCRIPT", "KILL")
            server.await_reply(lambda reply: reply == "PONG", "PING")  # it takes a moment to die
            await it.open()
            assert await it.add() == 1


@pytest_twisted.ensureDeferred
async def test_who_hears_that_it_is_lost_may_open_it_again_at_once() -> None:
    with redis_server() as server:
        async with linked(server) as it:
            await it.open()
            again: list[Deferred[None]] = []

            def reopen(reason: str) -> None:
                again.append(Deferred.fromCoroutine(it.open()))

            it.link._lost = reopen
            server.cli("SET", "key", "text")
            runs = [it.adding() for _ in range(5)]
            for run in runs:
                run.addErrback(lambda failure: failure.check(LinkError))
            assert [await run for run in runs] == [LinkError] * 5
            assert len(again) == 1
            await again[0]
            assert await it.add(key="other") == 1
