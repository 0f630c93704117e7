"""One answer out of many attempts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.openai.continuation import Continuation, Diverged
from schemas.message import Delta, TokenLogprob


def delta(text: str, at: int = 0, attempt: int = 1) -> Delta:
    """A delta whose tokens are its characters."""
    return Delta(request="r", attempt=attempt, at=at, text=text, logprobs=tokens(text))


def tokens(text: str) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(c, -1.0) for c in text)


class Reader(Continuation):
    """A client that reads the text, and as the log probabilities the same characters once more."""

    def __init__(self) -> None:
        super().__init__()
        self.logprobs = ""

    def hear(self, item: Delta | str) -> str:
        new = self.piece(item) if isinstance(item, Delta) else self.rest(item, tokens(item))
        self.logprobs += "".join(token.token for token in new.logprobs)
        return new.text


def read(*items: Delta | str) -> str:
    """What a client has read after these pieces and, last, the final text."""
    told = Reader()
    return "".join(told.hear(item) for item in items)


def test_pieces_follow_each_other() -> None:
    assert read(delta("ab"), delta("cd", 2), "abcde") == "abcde"


def test_a_lost_piece_is_made_up_by_the_final_answer() -> None:
    told = Reader()
    assert told.hear(delta("ab")) == "ab"
    assert told.hear(delta("ef", 4)) == ""
    assert told.hear("abcdef") == "cdef"
    assert told.logprobs == "abcdef"


def test_a_repeated_piece_is_not_sent_twice() -> None:
    assert read(delta("ab"), delta("ab"), delta("bc", 1), "abc") == "abc"


def test_a_new_attempt_that_repeats_itself_goes_on_seamlessly() -> None:
    told = Reader()
    assert told.hear(delta("abcd")) == "abcd"
    assert told.hear(delta("ab", 0, 2)) == ""
    assert told.hear(delta("cdef", 2, 2)) == "ef"
    assert told.hear(delta("zz", 9, 1)) == ""
    assert told.hear(delta("g", 6, 2)) == "g"
    assert told.hear("abcdefg") == ""
    assert told.logprobs == "abcdefg"


def test_a_new_attempt_that_differs_is_told_apart() -> None:
    told = Reader()
    told.hear(delta("abcd"))
    told.hear(delta("ab", 0, 2))
    with pytest.raises(Diverged):
        told.hear(delta("XY", 2, 2))


def test_a_final_answer_that_differs_is_told_apart() -> None:
    told = Reader()
    told.hear(delta("abcd"))
    with pytest.raises(Diverged):
        told.hear("abX")


def test_a_trimmed_final_answer_is_the_same_answer() -> None:
    assert read(delta("ab \n"), "ab") == "ab \n"


def test_tokens_that_came_after_the_last_text_are_told_at_the_end() -> None:
    told = Reader()
    told.hear(delta("ab"))
    assert [t.token for t in told.rest("ab", (*tokens("ab"), TokenLogprob("<end>", 0.0))).logprobs] == ["<end>"]


@given(st.text(max_size=40), st.randoms(use_true_random=False))
def test_whatever_is_lost_or_restarted_the_client_reads_the_answer_once(text: str, chance: random.Random) -> None:
    told = Reader()
    seen = ""
    for attempt in range(1, chance.randint(1, 4) + 1):
        at = 0
        while at < len(text) and chance.random() > 0.1:
            piece = text[at : at + chance.randint(1, 5)]
            if chance.random() > 0.2:
                seen += told.hear(delta(piece, at, attempt))
                assert text.startswith(seen)
                assert text.startswith(told.logprobs)
            at += len(piece)
    assert seen + told.hear(text) == text
    assert told.logprobs == text
