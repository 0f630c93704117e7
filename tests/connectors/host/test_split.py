"""Splitting an answer: nothing is lost, nothing is too long, no character is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.host.split import split

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)


def bare(text: str) -> str:
    return "".join(text.split())


@given(TEXT, st.integers(4, 80))
def test_pieces_join_to_the_text_and_none_is_too_long(text: str, limit: int) -> None:
    pieces = list(split(text, limit))
    assert bare("".join(pieces)) == bare(text)
    assert all(0 < len(piece.encode()) <= limit for piece in pieces)
    if len(text.encode()) <= limit:
        assert pieces == ([text] if text else [])


@given(st.text("abc .\n。", max_size=300), st.integers(8, 40))
def test_words_that_fit_are_not_cut(text: str, limit: int) -> None:
    words = text.split()
    if all(len(word.encode()) <= limit // 3 for word in words):
        assert " ".join(split(text, limit)).split() == words or "。" in text or "." in text


@given(TEXT)
def test_without_a_limit_the_text_is_one_piece(text: str) -> None:
    assert list(split(text, 0)) == [text]


def test_it_cuts_at_the_best_place_that_fits() -> None:
    assert list(split("One para.\n\nTwo words here", 16)) == ["One para.", "Two words here"]
    assert list(split("line one\nline two", 12)) == ["line one", "line two"]
    assert list(split("First. Second one", 12)) == ["First.", "Second one"]
    assert list(split("abcdefghij", 4)) == ["abcd", "efgh", "ij"]


def test_a_character_is_never_cut() -> None:
    assert list(split("🌍🌍🌍", 7)) == ["🌍", "🌍", "🌍"]
    assert list(split("世界你好", 6)) == ["世界", "你好"]
    with pytest.raises(ValueError, match="3 bytes do not hold one character"):
        list(split("🌍🌍", 3))
