"""Keys: their form, and which client one belongs to."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.access import Client, Clients, Right, Stranger
from lxdsched.access.keys import digest, is_id, key_id, new_id, new_key
from lxdsched.access.values import Entry, Key
from tests.unit.access import NOW, clients, row, token

KEY, OTHER = token(), token("00000001", "y")
TWO = clients(
    f"""
    [shoes-1]
    rights = ["schedule"]
    keys = [{row(KEY)}, {row(OTHER, "2026-11-26T12:00:00Z")}]
    [grafana]
    rights = ["read"]
    keys = [{row(token("00000002"))}]
    """
)


def refusal(key: str, known: Clients = TWO) -> str:
    with pytest.raises(Stranger) as caught:
        known.by_key(key, NOW)
    assert "x" * 8 not in str(caught.value)
    return str(caught.value)


def test_a_new_key_has_its_form_and_is_like_no_other() -> None:
    made = {new_key("3f9a1c02") for _ in range(100)}
    assert len(made) == 100
    assert {key_id(key) for key in made} == {"3f9a1c02"}
    assert {len(key) for key in made} == {9 + 8 + 1 + 43}
    assert is_id(new_id())


def test_what_is_kept_of_a_key_is_the_sha_256_of_all_of_it() -> None:
    assert digest(KEY) == hashlib.sha256(KEY.encode()).digest()


def test_a_key_leads_to_its_client() -> None:
    assert TWO.by_key(KEY, NOW) == Client("shoes-1", frozenset({Right.SCHEDULE}))
    assert TWO.by_key(token("00000002"), NOW).name == "grafana"


def test_a_new_key_is_known_once_its_digest_is() -> None:
    key = new_key("0123abcd")
    entry = Entry(Client("a", frozenset({Right.READ})), (Key("0123abcd", digest(key), NOW),))
    assert Clients([entry]).by_key(key, NOW) == entry.client


def test_an_unknown_id_and_a_wrong_secret_are_told_alike() -> None:
    assert refusal(token("99999999")) == "the key 99999999 is not known"
    assert refusal(token("3f9a1c02", "z")) == "the key 3f9a1c02 is not known"
    assert refusal(KEY, Clients()) == "the key 3f9a1c02 is not known"


def test_an_unknown_id_is_compared_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    refusal(token("99999999"))
    TWO.by_key(KEY, NOW)
    assert compared == [(32, 32)] * 2


def test_a_key_ends_at_its_moment() -> None:
    assert TWO.by_key(OTHER, NOW - timedelta(microseconds=1)).name == "shoes-1"
    assert refusal(OTHER) == "the key 00000001 expired on 2026-11-26 12:00 UTC"
    assert refusal(token("00000001", "z")) == "the key 00000001 is not known"  # its end is for its owner to know


@pytest.mark.parametrize(
    "key",
    [
        "",
        "lxdsched",
        KEY[:-1],
        KEY + "x",
        KEY + "\n",
        KEY[:-1] + "\n",
        " " + KEY,
        KEY.upper(),
        KEY.replace("lxdsched", "LXDSCHED"),
        KEY.replace("3f9a", "3F9A"),
        KEY.replace("3f9a", "٣f9a"),
        KEY[:-1] + "=",
        KEY[:-1] + "\0",
        KEY[:-1] + "\ud800",
        "\ud800" * len(KEY),
        "x" * 1_000_000,
        KEY * 20_000,
    ],
    ids=range(17),
)
def test_what_has_not_the_form_of_a_key_is_refused_unread(key: str) -> None:
    assert refusal(key) == "what was sent as a key does not have the form of one, lxdsched_<id>_<secret>"


pieces = st.lists(
    st.sampled_from(["lxdsched_", "_", "3f9a1c02", "x" * 43, "a", "\0", "\n", "\ud800", "٣", "="]) | st.text(max_size=3)
).map("".join)
mutants = st.tuples(st.integers(0, len(KEY)), st.integers(0, 2), st.text(max_size=2)).map(
    lambda cut: KEY[: cut[0]] + cut[2] + KEY[cut[0] + cut[1] :]
)


@given(st.text(st.characters(codec=None), max_size=100) | pieces | mutants)
def test_any_text_is_the_key_or_a_strangers(text: str) -> None:
    try:
        assert TWO.by_key(text, NOW).name == "shoes-1"
    except Stranger as error:
        assert text != KEY
        assert str(error).isprintable()
        assert "xxx" not in str(error)
    else:
        assert text == KEY


def test_who_may_do_what() -> None:
    def allowed(*rights: Right) -> set[Right]:
        return {right for right in Right if Client("a", frozenset(rights)).may(right)}

    assert allowed() == set()
    assert allowed(Right.READ) == {Right.READ}
    assert allowed(Right.SCHEDULE) == {Right.SCHEDULE}
    assert allowed(Right.ADMIN) == set(Right)
