"""How the primary is found: by Sentinels, and in a cluster."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from lxdsched.ledger.link import LinkError
from lxdsched.ledger.settings import Account
from tests.redis.groups import redis_cluster, sentinels
from tests.redis.linked import Linked, fault_of, linked, settings
from tests.redis.server import free_port, redis_server
from tests.support import eventually, the_reactor

pytestmark = pytest.mark.real_redis


async def opened(it: Linked) -> None:
    """Open a link as soon as that is possible."""
    end = the_reactor().seconds() + 30
    while True:
        try:
            return await it.open(1)
        except LinkError:
            assert the_reactor().seconds() < end
            await deferLater(the_reactor(), 0.1)


@pytest_twisted.ensureDeferred
async def test_the_sentinels_say_where_the_primary_is_and_where_it_went() -> None:
    with (
        redis_server(password="word") as primary,
        redis_server(password="word", replica_of=primary) as replica,
        sentinels(primary, [replica], password="watch") as watchers,
    ):
        found = settings(f"{watchers.url}/1", sentinel_account=Account(None, "watch"))
        async with linked(found) as it:
            await it.open()
            assert await it.add() == 1
            await eventually(lambda: "db1:keys=1" in replica.cli("INFO", "keyspace"))
            primary.kill()
            await eventually(lambda: len(it.lost) == 1)
            await opened(it)
            assert await it.add() == 2
            assert replica.cli("ROLE")[0] == "master"


@pytest_twisted.ensureDeferred
async def test_sentinels_that_hang_or_are_gone_do_not_hold_up_the_others() -> None:
    with redis_server() as primary, sentinels(primary) as watchers:
        watchers.each[0].suspend()
        watchers.each[1].kill()
        async with linked(settings(watchers.url)) as it:
            began = the_reactor().seconds()
            await it.open(10)
            assert the_reactor().seconds() - began < 5
            assert await it.add() == 1


@pytest_twisted.ensureDeferred
async def test_a_sentinel_that_knows_it_wrong_does_not_hold_up_the_others() -> None:
    with (
        redis_server() as hung,
        redis_server() as primary,
        redis_server(replica_of=primary) as replica,
        sentinels(hung, count=1) as old,
        sentinels(replica, count=1, service="fleet") as odd,
        sentinels(primary, count=1) as right,
    ):
        # A Sentinel follows a replica to its primary, unless it hangs.
        odd.each[0].suspend()
        hung.suspend()
        url = f"redis+sentinel://{old.addresses},{odd.addresses},{right.addresses}/fleet"
        async with linked(settings(url)) as it:
            await it.open(2)
            assert await it.add() == 1
        assert primary.cli("GET", "key") == "1"


@pytest_twisted.ensureDeferred
async def test_a_server_that_all_sentinels_name_is_tried_once() -> None:
    with redis_server() as primary, sentinels(primary) as watchers:
        primary.kill()
        why = await fault_of(settings(watchers.url))
    assert why.startswith(f"no connection to {primary.address}: ")
    assert why.count("no connection") == 1


@pytest_twisted.ensureDeferred
async def test_why_no_sentinel_helps_is_told_of_each() -> None:
    with redis_server() as primary, sentinels(primary, count=2, password="watch") as watchers:
        port = free_port()
        first, second = watchers.each
        second.suspend()
        url = f"redis+sentinel://{first.address},127.0.0.1:{port},{second.address}/other"
        async with linked(settings(url, sentinel_account=Account(None, "watch"))) as it:
            faults = (await it.fault(0.2)).split("; ")
    assert sorted(fault.split(": ")[0].split(" within")[0] for fault in faults) == sorted(
        [
            f"no connection to Sentinel 127.0.0.1:{port}",
            f"Sentinel {first.address} knows no primary named 'other'",
            f"Sentinel {second.address} did not answer",
        ]
    )


@pytest_twisted.ensureDeferred
async def test_sentinels_want_their_own_password() -> None:
    with redis_server(password="word") as primary, sentinels(primary, count=1, password="watch") as watchers:
        (sentinel,) = watchers.each
        assert await fault_of(settings(watchers.url)) == (
            f"Sentinel {sentinel.address} wants a password, and none is set"
        )
        wrong = settings(watchers.url, sentinel_account=Account(None, "word"))
        assert await fault_of(wrong) == f"Sentinel {sentinel.address} refuses the user or the password"
        plain = settings(
            watchers.url.replace("redis+sentinel", "redis").removesuffix("/fleet"), account=Account(None, "watch")
        )
        assert await fault_of(plain) == f"{sentinel.address} is a Sentinel, and no server"


@pytest_twisted.ensureDeferred
async def test_the_node_of_a_cluster_that_has_the_keys_is_found() -> None:
    # In two equal halves, a belongs to the upper one (slot 15495) and b to the lower one (3300).
    with redis_cluster(2) as (lower, upper):
        async with linked(lower) as it:
            await it.open()
            why = await it.failure(key="a")
            assert why == f"{lower.address} answers: MOVED 15495 {upper.address}"
            assert it.lost == [why]
            await it.open()
            assert await it.add(key="a") == 1
            it.link.close()
            await it.open()  # it stays there
            assert await it.add(key="a") == 2
            upper.suspend()
            await it.open(0.5)  # or goes where it was told to, where that is of no use
            assert "MOVED" in await it.failure(key="a", timeout=0.2)
            upper.resume()
            await it.open()
            assert await it.add(key="a") == 3
