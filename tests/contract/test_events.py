"""What an LXD tells over its event stream, and to whom: the same of the simulated one as of real ones."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_twisted
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from lxdsched.sandbox.certs import KeyPair
from tests.contract.conftest import Lxd
from tests.contract.hearing import LIMITS, a, hearing, reactor, stranger, told
from tests.lxd.stream import LIFECYCLE, RejectedError, listen
from tests.sandbox.client import Client


@pytest_twisted.ensureDeferred
async def test_it_tells_of_every_change_of_an_instance(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    lxd = lxds[0].driver
    await lxd.create_project("team-a")
    async with hearing(lxds[0], scheduler_pair) as stream:
        await lxd.create("a", config=LIMITS)
        await told(stream, a("created"))
        await lxd.set_config("a", {"limits.cpu": "2"})
        await told(stream, a("updated"))
        await lxd.set_config("a", {"limits.cpu": None})
        await told(stream, a("updated"))
        await lxd.rename("a", "b")
        await told(stream, a("renamed", "b"))
        await lxd.delete("b")
        await told(stream, a("deleted", "b"))
        await lxd.create("a", project="team-a")
        await lxd.set_config("a", LIMITS, project="team-a")
        await lxd.delete("a", project="team-a")
        await told(stream, *(a(what, project="team-a") for what in ("created", "updated", "deleted")))


@pytest_twisted.ensureDeferred
async def test_it_tells_of_starting_and_stopping(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    lxd = lxds[0].driver
    await lxd.create("a", startable=True)
    async with hearing(lxds[0], scheduler_pair) as stream:
        await lxd.start("a")
        await told(stream, a("started"))
        await lxd.freeze("a")
        await told(stream, a("paused"))
        await lxd.unfreeze("a")
        await told(stream, a("resumed"))
        await lxd.restart("a")
        await told(stream, a("restarted"))
        await lxd.stop("a", force=False)
        await told(stream, a("shutdown"))
        await lxd.start("a")
        await lxd.stop("a", force=True)
        await told(stream, a("started"), a("stopped"))


@pytest_twisted.ensureDeferred
async def test_an_ephemeral_instance_is_gone_when_it_stops(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    lxd = lxds[0].driver
    source = {"type": "image", "alias": "tiny"}
    await lxd.request("POST", "/1.0/instances", {"name": "a", "ephemeral": True, "source": source})
    await lxd.start("a")
    async with hearing(lxds[0], scheduler_pair) as stream:
        await lxd.stop("a")
        await told(stream, a("stopped"), a("deleted"))


@pytest_twisted.ensureDeferred
async def test_a_changed_profile_is_told_of_each_instance_that_has_it(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    lxd = lxds[0].driver
    await lxd.create_project("team-a")
    profile = "/1.0/profiles/p"
    async with hearing(lxds[0], scheduler_pair) as stream:
        await lxd.create_profile("p", LIMITS)
        await told(stream, ("profile-created", profile))
        await lxd.create("a", profiles=["default", "p"])
        await lxd.create("b", profiles=["default", "p"], project="team-a")
        await lxd.create("c")
        await told(stream, a("created"), a("created", "b", "team-a"), a("created", "c"))
        await lxd.set_profile("p", {"limits.cpu": "2"})
        await told(stream, ("profile-updated", profile), a("updated"), a("updated", "b", "team-a"))
        await lxd.request("PATCH", profile, {"config": {"limits.cpu": "3"}})
        await told(stream, ("profile-updated", profile), a("updated"), a("updated", "b", "team-a"))
        await lxd.set_profiles("a", ["default"])
        await lxd.set_profiles("b", ["default"], project="team-a")
        await told(stream, a("updated"), a("updated", "b", "team-a"))
        await lxd.delete_profile("p")
        await told(stream, ("profile-deleted", profile))


@pytest_twisted.ensureDeferred
async def test_it_tells_of_the_server_itself_its_projects_and_its_clients(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    lxd, other = lxds[0].driver, stranger()
    async with hearing(lxds[0], scheduler_pair) as stream:
        await lxd.set_server_config({"user.lxdsched.drain": "true"})
        await told(stream, ("config-updated", "/1.0"))
        await lxd.set_server_config({"user.lxdsched.drain": None})
        await told(stream, ("config-updated", "/1.0"))
        await lxd.request("POST", "/1.0/projects", {"name": "team-b"})
        await told(stream, ("project-created", "/1.0/projects/team-b"))
        await lxd.delete_project("team-b")
        await told(stream, ("project-deleted", "/1.0/projects/team-b"))
        await lxd.trust(other.cert_pem, name="other")
        await told(stream, ("certificate-created", f"/1.0/certificates/{other.fingerprint}"))
        await lxd.untrust(other.fingerprint[:12])
        await told(stream, ("certificate-deleted", f"/1.0/certificates/{other.fingerprint[:12]}"))


@pytest_twisted.ensureDeferred
async def test_what_was_refused_is_not_told(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    lxd = lxds[0].driver
    await lxd.create("a")
    async with hearing(lxds[0], scheduler_pair) as stream:
        for refused in (lxd.create("a"), lxd.stop("a"), lxd.set_config("a", {"limits.cpu": "x"}), lxd.delete("b")):
            with pytest.raises(Exception, match=r"\(4\d\d\)|\(500\)"):
                await refused
        await told(stream)


@pytest_twisted.ensureDeferred
async def test_a_stream_of_one_project_tells_of_that_alone(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    lxd = lxds[0].driver
    await lxd.create_project("team-a")
    async with (
        hearing(lxds[0], scheduler_pair, "/1.0/events?type=lifecycle") as default,
        hearing(lxds[0], scheduler_pair, "/1.0/events?type=lifecycle&project=team-a") as team,
        hearing(lxds[0], scheduler_pair, "/1.0/events?type=lifecycle,operation&all-projects=true") as everything,
        hearing(lxds[0], scheduler_pair, "/1.0/events?type=operation&all-projects=true") as others,
    ):
        await lxd.create("a")
        await lxd.create("b", project="team-a")
        await lxd.set_server_config({"user.x": "1"})
        await told(default, a("created"), ("config-updated", "/1.0"))
        await told(team, a("created", "b", "team-a"))
        for stream, count in ((everything, 3), (others, 0)):
            lifecycle = [event for event in stream.events if event["type"] == "lifecycle"]
            assert len(lifecycle) == count


@pytest_twisted.ensureDeferred
async def test_a_message_looks_alike(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    lxd, incus = lxds[0].driver, lxds[0].flavour == "incus"
    await lxd.create("a", startable=True)
    named = {"name": "a", "project": "default"} if incus else {}
    async with hearing(lxds[0], scheduler_pair) as stream:
        await lxd.start("a")
        await lxd.set_config("a", LIMITS)
        await lxd.set_server_config({"user.x": "1"})
        await stream.until(lambda: len(stream.messages) == 3)
    assert all(message.endswith("}\n") for message in stream.messages)
    started, updated, configured = stream.events
    for event in (started, updated, configured):
        told_at = event.pop("timestamp")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", told_at)
        assert abs((datetime.now(UTC) - datetime.fromisoformat(told_at[:19] + "+00:00")).total_seconds()) < 60
    outside = {"type": "lifecycle", "location": "none", "project": "default"}
    requestor = started["metadata"].pop("requestor")
    assert re.fullmatch("[0-9a-f]{64}", requestor["username"])
    assert requestor["protocol"] == "tls"
    assert re.fullmatch(r"127\.0\.0\.1" if incus else r"127\.0\.0\.1:\d+", requestor["address"])
    assert started == outside | {"metadata": {"action": "instance-started", "source": "/1.0/instances/a"} | named}
    assert updated == outside | {"metadata": {"action": "instance-updated", "source": "/1.0/instances/a"} | named}
    assert configured["metadata"].pop("requestor") == requestor
    assert configured == outside | {"metadata": {"action": "config-updated", "source": "/1.0"}}


@pytest_twisted.ensureDeferred
async def test_who_may_not_hear_is_told_so_in_the_envelope(lxds: tuple[Lxd, ...]) -> None:
    for pair in (stranger(), None):
        with pytest.raises(RejectedError) as refusal:
            await listen(lxds[0].url, reactor(), pair)
        assert refusal.value.status == 403
        assert refusal.value.headers["content-type"] == "application/json"
        assert b'"error_code":403,"error":"not authorized"' in refusal.value.body


@pytest.mark.parametrize(
    ("query", "incus_says", "problem"),
    [
        ("type=nosuch", 400, '"nosuch" isn\'t a supported event type'),
        ("type=lifecycle,nosuch", 400, '"nosuch" isn\'t a supported event type'),
        ("project=nosuch", 404, "Project not found"),
        ("project=default&all-projects=true", 400, "Cannot specify a project when requesting all projects"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_it_does_not_have_it_refuses(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair, query: str, incus_says: int, problem: str
) -> None:
    expected = incus_says if lxds[0].flavour == "incus" else 500
    client = Client(lxds[0].url, scheduler_pair)
    status, envelope = await client.ask("GET", f"/1.0/events?{query}")
    await client.aclose()
    assert (status, envelope["error_code"], envelope["error"]) == (expected, expected, problem)
    with pytest.raises(RejectedError) as refusal:
        await listen(lxds[0].url, reactor(), scheduler_pair, f"/1.0/events?{query}")
    assert refusal.value.status == expected


@pytest_twisted.ensureDeferred
async def test_only_a_websocket_opens_it(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    client = Client(lxds[0].url, scheduler_pair)
    response = await client.response("GET", LIFECYCLE)
    assert (response.code, await response.content()) == (400, b"Bad Request\n")
    assert response.headers.getRawHeaders("content-type") == ["text/plain; charset=utf-8"]
    assert response.headers.getRawHeaders("sec-websocket-version") == ["13"]
    assert (await client.ask("POST", "/1.0/events"))[0] == 501
    assert (await client.ask("GET", "/1.0/events/x"))[0] == 404
    await client.aclose()


@pytest_twisted.ensureDeferred
async def test_a_restricted_client_hears_all_of_an_lxd_and_its_own_projects_of_an_incus(lxds: tuple[Lxd, ...]) -> None:
    lxd, pair = lxds[0].driver, stranger()
    await lxd.create_project("team-a")
    await lxd.trust(pair.cert_pem, restricted_projects=["team-a"])
    async with hearing(lxds[0], pair) as stream:
        await lxd.create("a")
        await lxd.create("b", project="team-a")
        await lxd.set_server_config({"user.x": "1"})
        own = [a("created", "b", "team-a")]
        await told(stream, *(own if lxds[0].flavour == "incus" else [a("created"), ("config-updated", "/1.0"), *own]))


@pytest_twisted.ensureDeferred
async def test_a_client_that_is_trusted_no_more_goes_on_hearing(lxds: tuple[Lxd, ...]) -> None:
    lxd, pair = lxds[0].driver, stranger()
    await lxd.trust(pair.cert_pem)
    async with hearing(lxds[0], pair) as stream:
        await lxd.untrust(pair.fingerprint)
        await lxd.create("a")
        await told(stream, a("created"), ("certificate-deleted", f"/1.0/certificates/{pair.fingerprint}"))


@pytest_twisted.ensureDeferred
async def test_it_pings_at_once_answers_pings_and_takes_leave(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair) -> None:
    async with hearing(lxds[0], scheduler_pair) as stream:
        assert stream.pings == [b"keepalive"]
        stream.send(Ping(b"are you there?"))
        await stream.until(lambda: stream.pongs == [b"are you there?"], 2)
        stream.send(CloseConnection(1001))
        await stream.ended(2)
        assert stream.farewell == 1001


@pytest.mark.parametrize("message", [TextMessage("hello"), BytesMessage(b"hello")])
@pytest_twisted.ensureDeferred
async def test_it_hangs_up_on_who_talks(lxds: tuple[Lxd, ...], scheduler_pair: KeyPair, message: Any) -> None:
    async with hearing(lxds[0], scheduler_pair) as stream:
        stream.send(message)
        await stream.ended(2)
        assert stream.farewell is None


@pytest_twisted.ensureDeferred
async def test_it_ends_with_its_server_and_tells_nothing_of_the_time_without(
    lxds: tuple[Lxd, ...], scheduler_pair: KeyPair
) -> None:
    lxd = lxds[0]
    async with hearing(lxd, scheduler_pair) as before:
        await lxd.kill()
        await before.ended(2)
        assert before.farewell is None
    await lxd.revive()
    await lxd.driver.create("a")
    async with hearing(lxd, scheduler_pair) as after:
        await lxd.driver.create("b")
        await told(after, a("created", "b"))
