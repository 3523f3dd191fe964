"""A host that shows a chain which would take long to look at."""

from __future__ import annotations

from typing import Any

import pytest
from OpenSSL import SSL

from lxdsched.chains import MOST_ABOVE, MOST_CONSTRAINTS, MOST_NAMES
from lxdsched.tls import Authority, FirstUse, HostPolicy, Pinned, Trust
from tests.unit.chained import certificates, showing, step


class Failing:
    """What Twisted puts around a connection."""

    def __init__(self) -> None:
        self.failure: Any = None

    def failVerification(self, failure: Any) -> None:  # noqa: N802
        """Keep why the connection has to end."""
        self.failure = failure


def shake(trust: Trust, chain: Any) -> str:
    """Have a host show a chain; return why the handshake fails on our side, empty where it does not."""
    pair, above = chain
    host = SSL.Connection(showing(SSL.TLS_SERVER_METHOD, pair, above), None)
    host.set_accept_state()
    around: Any = Failing()
    ours = HostPolicy(None, trust, "a0").clientConnectionForTLS(around)
    ours.set_connect_state()
    for _ in range(4):
        for one, other in ((ours, host), (host, ours)):
            raised = step(one, other)
            if raised and one is ours:
                return raised
    return "" if around.failure is None else str(around.failure.value)


def trusts(chain: Any) -> list[Trust]:
    pair, _ = chain
    return [Pinned(frozenset({pair.fingerprint})), FirstUse()]


@pytest.mark.parametrize("which", [0, 1], ids=["pinned", "first use"])
@pytest.mark.parametrize(
    ("above", "names", "constraints", "refused"),
    [
        (0, 5000, 0, False),
        (MOST_ABOVE, MOST_NAMES, MOST_CONSTRAINTS, False),
        (MOST_ABOVE + 1, 1, 0, True),
        (1, 3000, MOST_CONSTRAINTS + 1, True),
        (7, 900, 1000, True),
    ],
)
def test_what_stands_above_a_hosts_own_certificate_is_bounded(
    above: int, names: int, constraints: int, refused: bool, which: int
) -> None:
    chain = certificates(above, names, constraints)
    said = shake(trusts(chain)[which], chain)
    assert ("certificates above its own" in said or "constraints on names" in said) if refused else not said


def test_an_authority_that_is_trusted_may_have_any_number_of_constraints() -> None:
    pair, above = certificates(1, 1, 10 * MOST_CONSTRAINTS)
    assert shake(Authority(tuple(above)), (pair, above)) == ""
