"""Pieces put together: each answer's deltas join to its text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.message import Delta, TokenLogprob
from schemas.picture import Progress
from workers import Finished, Piece
from workers.host.said import Said


def token(text: str) -> TokenLogprob:
    return TokenLogprob(text, -1.0)


def test_a_piece_is_told_with_its_place() -> None:
    said = Said("r", 2)
    assert said.hear(Piece("r", "ab")) == Delta(request="r", attempt=2, text="ab")
    assert said.hear(Piece("r", "c", Finished())) == Delta(request="r", attempt=2, at=2, text="c")
    assert said.text == "abc"


def test_an_end_without_text_is_no_delta() -> None:
    assert Said("r", 1).hear(Piece("r", "", Finished())) is None


def test_tokens_without_text_wait_for_it() -> None:
    said = Said("r", 1)
    assert said.hear(Piece("r", "", None, 1, (token("x"),))) is None
    assert said.hear(Piece("r", "a", None, 0, (token("a"),))) == Delta(request="r", text="a", logprobs=(token("a"),))
    both = said.hear(Piece("r", "é", None, 1, (token("y"),)))
    assert both == Delta(request="r", text="é", choice=1, logprobs=(token("x"), token("y")))


@given(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=4))))
def test_the_deltas_of_each_answer_join_without_a_gap(pieces: list[tuple[int, str]]) -> None:
    said, texts, logprobs = Said("r", 1), dict.fromkeys(range(4), ""), dict.fromkeys(range(4), "")
    for choice, text in pieces:
        delta = said.hear(Piece("r", text, None, choice, tuple(map(token, text))))
        if delta is not None:
            assert delta.at == len(texts[delta.choice])
            texts[delta.choice] += delta.text
            logprobs[delta.choice] += "".join(t.token for t in delta.logprobs)
    for i in range(4):
        assert texts[i] == logprobs[i] == "".join(text for choice, text in pieces if choice == i)
    assert said.text == texts[0]
    assert "".join(t.token for t in said.logprobs) == texts[0]


def test_the_progress_of_a_picture_is_told_without_text() -> None:
    progress = Progress(step=2, steps=4, preview=b"jpeg")
    assert Said("r", 1).hear(Piece("r", progress=progress)) == Delta(request="r", progress=progress)
