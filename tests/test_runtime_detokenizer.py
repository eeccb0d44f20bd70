"""Bytes of tokens to text: whole characters, stop strings, and nothing lost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingle.runtime.engine.detokenizer import Detokenizer


def feed(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], Detokenizer]:
    detokenizer = Detokenizer(stop)
    return [detokenizer.feed(piece) for piece in pieces], detokenizer


@pytest.mark.parametrize("text", ["é", "日本", "👩‍👩‍👧", "a\U0001f525b"])
def test_no_half_character_leaves_at_any_cut(text: str) -> None:
    data = text.encode()
    for cut in range(len(data) + 1):
        texts, _ = feed([data[:cut], data[cut:]])
        assert "".join(texts) == text
        assert "\ufffd" not in "".join(texts)


def test_bytes_that_are_no_text_become_replacement_characters_and_an_open_end_is_dropped() -> None:
    texts, detokenizer = feed([b"a\xff", b"b", b"\xe2\x82"])
    assert "".join(texts) == "a\ufffdb"
    assert detokenizer.finish() == ""


def test_a_stop_string_over_several_tokens_never_shows() -> None:
    texts, detokenizer = feed([b"To be", b" <", b"|e", b"nd", b"|> or not"], ("<|end|>",))
    assert texts == ["To be", " ", "", "", ""]
    assert detokenizer.stopped
    assert detokenizer.finish() == ""


def test_what_only_looked_like_a_stop_string_comes_out() -> None:
    texts, detokenizer = feed([b"a<|", b"b", b"<"], ("<|end|>",))
    assert texts == ["a", "<|b", ""]
    assert detokenizer.finish() == "<"


def test_the_first_of_several_stop_strings_counts() -> None:
    texts, _ = feed([b"one two three"], ("three", "two"))
    assert texts == ["one "]


@given(
    st.text(),
    st.lists(st.integers(0, 200)),
    st.lists(st.text(min_size=1, max_size=4), max_size=3),
)
def test_any_text_at_any_cuts_ends_before_its_first_stop_string(text: str, cuts: list[int], stop: list[str]) -> None:
    data = text.encode("utf-8", "replace")
    text = data.decode()
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    texts, detokenizer = feed([data[a:b] for a, b in pairwise(edges)], tuple(stop))
    ends = [at for one in stop if (at := text.find(one)) >= 0]
    expected = text[: min(ends)] if ends else text
    assert "".join(texts) + detokenizer.finish() == expected
