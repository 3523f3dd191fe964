"""Guesses at what somebody meant."""

from __future__ import annotations

from lxdsched.spelling import meant


def test_a_word_that_is_close_is_a_guess() -> None:
    assert meant("right", ["names", "rights"]) == ", did you mean rights?"
    assert meant("nonsense", ["names", "rights"]) == ""


def test_a_long_word_is_not_compared() -> None:
    assert meant("x" * 65, ["x" * 64]) == ""
