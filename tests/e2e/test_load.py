"""The account of what several daemons have given away finds what was given away twice."""

from __future__ import annotations

import pytest

from tests.e2e.load import Answer, heedless, overbooked


def claim(came: float, ended: float | None = None, host: str = "a", *, degraded: bool = False) -> Answer:
    body = {"host": host, "reservation": {"id": f"{came}"}} | ({"degraded": True} if degraded else {})
    return Answer(8080, came - 1, came, 200, body, ended=ended)


def test_claims_that_live_at_the_same_time_count_together() -> None:
    assert overbooked([claim(1), claim(2), claim(3)], 4) == {"a": 2}
    assert overbooked([claim(1), claim(2)], 4) == {}
    assert overbooked([claim(1), claim(2), claim(3, host="b")], 4) == {}


def test_a_claim_that_is_given_back_or_over_counts_no_more() -> None:
    assert overbooked([claim(1, ended=3), claim(2), claim(3)], 4) == {}
    assert overbooked([claim(1), claim(2), claim(11)], 4, life=10) == {}
    assert overbooked([claim(1), claim(2), claim(9)], 4, life=10) == {"a": 2}


def test_who_gives_away_what_was_held_before_is_named() -> None:
    before = [claim(1, degraded=True), claim(2)]
    late = claim(5)
    assert heedless([*before, late], 3, 4) == [late]
    assert heedless([*before, late], 4.5, 4) == []
    assert heedless([*before, claim(5, degraded=True)], 3, 4) == []


@pytest.mark.parametrize("ended", [3.5, 4.5])
def test_what_may_have_been_given_back_meanwhile_is_not_held_against_anybody(ended: float) -> None:
    assert heedless([claim(1, ended=ended), claim(2), claim(5)], 3, 4) == []
