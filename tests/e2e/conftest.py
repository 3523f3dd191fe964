"""The fleet on which daemons are tried whose Redis fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.replicas import Fleet, simulated


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Four hosts: fewer than the load that is put on them would fill."""
    with simulated(4) as it:
        yield it
