"""By what a repeated request is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.repeats import RequestKey, key, read

SEPARATORS = st.text(st.sampled_from('[]",\\ nul\0ci:/r-1\u00e9\U0001f600'))
texts = st.text() | SEPARATORS
keys = st.builds(RequestKey, st.none() | texts, texts)
# What looks like the text of another key, and of that one.
alike = st.recursive(keys, lambda inner: inner.map(lambda each: RequestKey(None, each.text())))


@given(keys | alike)
def test_what_is_written_is_read_so_no_two_are_written_alike(written: RequestKey) -> None:
    assert read(written.text()) == written


@given(texts | texts.map("[".__add__))
def test_any_text_is_a_key(text: str) -> None:
    assert read(text).text() == text or read(text) == RequestKey(None, text)


@pytest.mark.parametrize(
    ("client", "request_id", "text"),
    [
        (None, "job-7", "job-7"),
        (None, "ci/job-7", "ci/job-7"),
        ("ci", "job-7", '["ci","job-7"]'),
        (None, '["ci","job-7"]', '[null,"[\\"ci\\",\\"job-7\\"]"]'),
        (None, "[", '[null,"["]'),
    ],
)
def test_without_a_client_it_is_the_id_alone_unless_that_looks_like_a_pair(
    client: str | None, request_id: str, text: str
) -> None:
    assert RequestKey(client, request_id).text() == text


@pytest.mark.parametrize(
    "text", ["[", "[]", "[job", '["ci"]', '["ci", "r"]', '[null,"r"]', '["ci","r",1]', "[" * 10000]
)
def test_what_was_never_written_so_is_the_id_of_nobody(text: str) -> None:
    assert read(text) == RequestKey(None, text)


def test_a_request_without_an_id_has_no_key() -> None:
    assert key("ci", None) is None
    assert key(None, None) is None
    assert key("ci", "r-1") == RequestKey("ci", "r-1")
