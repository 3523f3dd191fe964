"""Thousands of hostile clients neither bring the daemon down nor keep an honest one from being served."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from tests.e2e.hostile import Plan
from tests.e2e.replicas import Fleet, simulated
from tests.e2e.siege import FEWEST, MIB, Besieged, Round, besieged

SECONDS = float(os.environ.get("LXDSCHED_HOSTILE_SECONDS", "4"))
"""How long the honest client asks beside each attack."""
HALF_OPEN, SLOW, FLOODING = 1000, 1000, 200
EVERYBODY = Plan(0, half_open=HALF_OPEN, slow=SLOW, flooding=FLOODING)
CONNECTIONS = 3000
"""How many the daemon may have: some that the clients have left are there until it is their turn."""
BATCH = 1024
"""Connections that the system has made and that the daemon may take at once, before the others' places are free."""
SPARE = 16
"""Descriptors that may be open beside all those: honest clients' and, for a moment, more to hosts."""
MEMORY = 96 * MIB
"""What the daemon may need more than at rest for all of them."""
GROWTH = 12 * MIB
"""What it may keep of that from one attack to the next."""
WORK = 0.4
"""Seconds of a CPU that the daemon may spend, on whomever, until the honest client is answered, mostly."""
QUICK: dict[bool, dict[str, Any]] = {
    False: {"request_timeout": 2, "idle_timeout": 3},
    True: {"request_timeout": 4, "idle_timeout": 5},
}
"""Without TLS and with it: thousands of handshakes take the attackers a while."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with simulated(20, 64) as it:
        yield it


def check_served(seen: Round) -> None:
    """Hold it against the daemon if the honest client was not served, every time."""
    assert seen.honest.failures == []
    assert len(seen.honest.new) >= FEWEST
    assert median(seen.honest.work) <= WORK


def check_well(running: Besieged) -> None:
    """Hold it against the daemon if it ended, or failed at anything."""
    assert running.process.poll() is None
    assert running.troubles() == []


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_an_honest_client_is_served_beside_thousands_of_hostile_ones(fleet: Fleet, tls: bool) -> None:
    with besieged(fleet.hosts, tls=tls, over_commit_percent=1000, max_connections=CONNECTIONS, **QUICK[tls]) as running:
        check_served(running.round(1))
        rest, after = running.read(), []
        for addresses in (200, 1, 200):
            seen = running.round(SECONDS, replace(EVERYBODY, addresses=addresses))
            print(f"\n{seen.summary()}")
            check_served(seen)
            check_well(running)
            assert seen.most.descriptors <= rest.descriptors + CONNECTIONS + BATCH + SPARE
            assert seen.most.resident <= rest.resident + MEMORY
            # It was an attack.
            assert seen.of("half-open", "connected") + seen.of("half-open", "failed") >= HALF_OPEN
            assert seen.of("slow", "requests") + seen.of("slow", "sent") >= SLOW
            assert seen.most.descriptors >= rest.descriptors + FLOODING
            assert seen.of("half-open", "dropped") >= FLOODING
            assert sum(seen.answers.values()) >= FLOODING
            assert seen.answers["400"] >= FLOODING / 10
            after.append(running.settle(rest.descriptors + SPARE))
        assert after[-1].resident <= after[0].resident + GROWTH
        check_served(running.round(1))
