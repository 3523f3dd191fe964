"""What Prometheus is told."""

from __future__ import annotations

from dataclasses import replace

import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families

from lxdsched.model import State
from tests.support import eventually
from tests.web.client import ask, connect
from tests.web.conftest import Served

FLAT = {"cpu": 2, "memory": 2147483648}


async def scrape(served: Served) -> dict[tuple[str, str], float]:
    """Read all samples, by name and by the value of the label that they have."""
    answer = await ask("GET", served.url + "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.body)
        for sample in family.samples
    }


@pytest_twisted.ensureDeferred
async def test_answers_are_counted_by_what_they_say(served: Served) -> None:
    for body in (FLAT, FLAT, FLAT | {"dry_run": True}, FLAT | {"cpu": 100}, {"cpu": 1}):
        await ask("POST", served.url + "/schedule", body)
    told = await scrape(served)
    counted = {label: count for (name, label), count in told.items() if name == "lxdsched_decisions_total"}
    assert counted == {"placed": 2, "dry_run": 1, "never_fits": 1, "invalid_request": 1}
    assert told["lxdsched_decision_seconds_count", ""] == 5
    assert 0 < told["lxdsched_decision_seconds_sum", ""] < 60


@pytest_twisted.ensureDeferred
async def test_how_the_fleet_stands_is_told_in_sum(served: Served) -> None:
    await ask("GET", served.url + "/hosts")
    await ask("POST", served.url + "/schedule", FLAT)
    told = await scrape(served)
    cores = {label: value for (name, label), value in told.items() if name == "lxdsched_cpu_cores"}
    assert cores == {"capacity": 12, "allocated": 4, "reserved": 2}
    assert told["lxdsched_memory_bytes", "reserved"] == 2147483648
    assert told["lxdsched_memory_bytes", "capacity"] == 2 * 16 * 1024**3
    hosts = {label: value for (name, label), value in told.items() if name == "lxdsched_hosts"}
    assert hosts.keys() == set(State)
    assert sum(hosts.values()) == 2
    assert hosts[State.UNREACHABLE] == 0
    assert told["lxdsched_ledger_degraded", ""] == 0


@pytest_twisted.ensureDeferred
async def test_a_host_that_cannot_be_chosen_adds_nothing_to_the_sum(served: Served) -> None:
    await ask("GET", served.url + "/hosts")
    await served.hosts[1].stop()
    answer = await ask("GET", served.url + "/hosts")
    while answer.body["summary"]["by_state"].get("unreachable") != 1:
        answer = await ask("GET", served.url + "/hosts")
    told = await scrape(served)
    assert told["lxdsched_cpu_cores", "capacity"] == 4
    assert told["lxdsched_hosts", "unreachable"] == 1


@pytest_twisted.ensureDeferred
async def test_errors_are_counted_by_their_code(served: Served) -> None:
    await ask("GET", served.url + "/nowhere")
    await ask("PUT", served.url + "/hosts")
    client = await connect(served.port)
    client.send(b"hello\r\n\r\n")
    await client.closed
    told = await scrape(served)
    counted = {label: count for (name, label), count in told.items() if name == "lxdsched_errors_total"}
    assert counted == {"not_found": 1, "method_not_allowed": 1, "invalid_request": 1}


@pytest_twisted.ensureDeferred
async def test_connections_are_told_with_those_that_were_dropped(served: Served) -> None:
    served.site.crowd._bounds = replace(served.site.bounds, connections=1)
    client = await connect(served.port)
    await eventually(lambda: served.site.crowd.connections == 1)
    told = await scrape(served)
    await client.closed
    assert told["lxdsched_connections", ""] == 1
    dropped = {label: count for (name, label), count in told.items() if name == "lxdsched_connections_dropped_total"}
    assert dropped == {"connections": 1, "connections_per_peer": 0, "rate_per_peer": 0}
