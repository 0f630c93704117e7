"""Packing of texts, over an encoder whose embeddings tell which tokens stood before."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import Rejected, Retryable
from workers import Finished
from workers.llama.embedding.embedder import INPUTS_MAX, Embedder, pack
from workers.llama.engine.machine import Row, StepFailed
from workers.llama.engine.schedule import Prompt, Share

BAD = 99


class FakeEncoder:
    """A token's embedding is (1, the sum of all up to it); it keeps that sum, as a real one keeps its cells."""

    def __init__(self, *, whole: bool = False, sequences: int = 4, batch_max: int = 16, tokens_max: int = 60) -> None:
        self.whole, self.sequences, self.batch_max, self.tokens_max = whole, sequences, batch_max, tokens_max
        self.cells = 0
        self.memory = True
        self.state: dict[int, tuple[int, int]] = {}
        self.batches: list[list[int]] = []

    def make_room(self, tokens: int) -> None:
        if not self.memory:
            raise StepFailed("no memory")
        if tokens > self.cells:
            self.state.clear()
            self.cells = max(tokens, self.batch_max)

    def compute(self, rows: Sequence[Row]) -> Any:
        sizes = [len(row.tokens) for row in rows]
        self.batches.append(sizes)
        assert len(rows) <= self.sequences
        assert sum(sizes) <= (self.cells if self.whole else self.batch_max)
        if any(BAD in row.tokens for row in rows):
            raise StepFailed("bad token")
        out = []
        for row in rows:
            done, total = self.state.pop(row.seq, (0, 0))
            assert row.start == done
            for token in row.tokens:
                total += token
                out.append([1.0, total])
            self.state[row.seq] = (done + len(row.tokens), total)
        assert sum(done for done, _ in self.state.values()) <= self.cells
        return np.array(out, dtype=np.float32)

    def forget(self, seq: int) -> None:
        self.state.pop(seq, None)

    def rest(self) -> None:
        assert not self.state

    def close(self) -> None:
        self.state.clear()
        self.cells = 0


def lists(*texts: Sequence[int]) -> list[array[int]]:
    return [array("i", text) for text in texts]


def run(embedder: Embedder, budget: int = 16, ends: dict[str, Finished] | None = None) -> dict[str, Finished]:
    ends = {} if ends is None else ends
    for _ in range(1_000):
        if not embedder.busy:
            return ends
        for piece in embedder.step(budget):
            assert piece.request not in ends
            assert piece.finished is not None
            ends[piece.request] = piece.finished
    raise AssertionError("it does not come to an end")


def expected(text: Sequence[int], pooling: str) -> Any:
    sums = np.cumsum(text)
    value = {"mean": sums.mean(), "first": sums[0], "last": sums[-1]}[pooling]
    return np.array([1.0, value]) / np.hypot(1.0, value)


requests_of = st.lists(
    st.tuples(
        st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=50), min_size=1, max_size=9), st.integers(0, 3)
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=100, deadline=None)
@given(requests_of, st.integers(1, 20), st.booleans(), st.sampled_from(["mean", "first", "last"]))
def test_every_text_gets_its_own_vector_however_it_is_packed(
    requests: list[tuple[list[list[int]], int]], budget: int, whole: bool, pooling: Any
) -> None:
    encoder = FakeEncoder(whole=whole)
    embedder = Embedder(encoder, pooling)
    ends: dict[str, Finished] = {}
    for i, (texts, steps) in enumerate(requests):
        embedder.add(str(i), lists(*texts))
        for _ in range(steps):
            for piece in embedder.step(budget):
                assert piece.finished is not None
                ends[piece.request] = piece.finished
    run(embedder, budget, ends)
    assert len(ends) == len(requests)
    for i, (texts, _) in enumerate(requests):
        assert ends[str(i)].usage.prompt_tokens == sum(map(len, texts))
        for text, vector in zip(texts, ends[str(i)].embeddings, strict=True):
            assert np.allclose(np.frombuffer(vector, "<f4"), expected(text, pooling), atol=1e-6)
    assert not encoder.state


def test_short_texts_share_a_batch_and_a_step_takes_no_more_than_its_budget() -> None:
    encoder = FakeEncoder(sequences=8)
    embedder = Embedder(encoder, "mean")
    embedder.add("r", lists(*[[1, 2]] * 9))
    run(embedder, budget=12)
    assert encoder.batches == [[2] * 6, [2] * 3]


def test_the_budget_follows_the_time_that_tokens_take() -> None:
    encoder = FakeEncoder(batch_max=64)
    embedder = Embedder(encoder, "mean", clock=lambda: 0.002 * sum(map(sum, encoder.batches)))  # a token takes 2 ms
    embedder.add("r", lists(*[[1] * 60] * 6))
    for _ in range(3):
        embedder.step(embedder.budget(0.06))
    assert embedder.budget(0.06) in (29, 30)
    assert embedder.budget(10.0) == 64


def test_a_long_text_delays_a_short_one_by_no_step() -> None:
    encoder = FakeEncoder()
    embedder = Embedder(encoder, "mean")
    embedder.add("long", lists([1] * 60))
    embedder.step(8)
    embedder.add("short", lists([1, 2, 3]))
    assert [piece.request for piece in embedder.step(8)] == ["short"]
    assert [*run(embedder)] == ["long"]


def test_requests_take_turns() -> None:
    encoder = FakeEncoder(sequences=2)
    embedder = Embedder(encoder, "mean")
    embedder.add("many", lists(*[[1] * 8] * 40))
    embedder.add("one", lists([2] * 8))
    ended = [piece.request for _ in range(2) for piece in embedder.step(8)]
    assert ended == ["one"]


@pytest.mark.parametrize("whole", [False, True])
def test_a_text_that_cannot_be_computed_fails_its_request_alone(whole: bool) -> None:
    encoder = FakeEncoder(whole=whole)
    embedder = Embedder(encoder, "mean")
    embedder.add("long", lists([1] * 30))
    ends = {piece.request: piece.finished for piece in embedder.step(12) if piece.finished}
    embedder.add("bad", lists([1, BAD], [1, 2]))
    embedder.add("good", lists([1, 2], [3]))
    run(embedder, 12, ends)
    assert {name: end.finish for name, end in ends.items()} == {"bad": "error", "good": "stop", "long": "stop"}
    assert np.allclose(np.frombuffer(ends["long"].embeddings[0], "<f4"), expected([1] * 30, "mean"))
    assert not encoder.state


def test_a_request_that_fails_leaves_no_unfinished_text_behind() -> None:
    encoder = FakeEncoder()
    embedder = Embedder(encoder, "mean")
    embedder.add("bad", lists([1] * 30, [BAD]))
    embedder.add("good", lists([2] * 20))
    ends = run(embedder, budget=12)
    assert {name: end.finish for name, end in ends.items()} == {"bad": "error", "good": "stop"}
    assert np.allclose(np.frombuffer(ends["good"].embeddings[0], "<f4"), expected([2] * 20, "mean"))
    assert not encoder.state


def test_a_cancelled_request_ends_with_the_next_step_and_leaves_nothing() -> None:
    encoder = FakeEncoder()
    embedder = Embedder(encoder, "mean")
    embedder.add("long", lists([1] * 60))
    embedder.add("other", lists([1] * 20))
    embedder.step(8)
    assert encoder.state
    embedder.cancel("long")
    embedder.cancel("nobody")
    assert not encoder.state
    assert [(p.request, p.finished.finish) for p in embedder.step(8) if p.finished] == [("long", "cancelled")]
    assert [*run(embedder)] == ["other"]


def test_without_memory_it_may_be_tried_again_later() -> None:
    encoder = FakeEncoder()
    encoder.memory = False
    embedder = Embedder(encoder, "mean")
    embedder.add("r", lists([1]))
    assert isinstance(run(embedder)["r"].error, Retryable)


@pytest.mark.parametrize("numbers", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_a_vector_that_cannot_have_length_one_is_an_error(numbers: list[float]) -> None:
    class Broken(FakeEncoder):
        def compute(self, rows: Sequence[Row]) -> Any:
            return np.array([numbers] * sum(len(row.tokens) for row in rows), dtype=np.float32)

    embedder = Embedder(Broken(), "mean")
    embedder.add("r", lists([1]))
    assert "input[0]" in str(run(embedder)["r"].error)


@pytest.mark.parametrize(
    ("texts", "code", "says"),
    [
        ([], "empty", "nothing"),
        ([[1], []], "empty", r"input\[1\]"),
        ([[1], [1], [1] * 61], "context_overflow", r"input\[2\].*61 tokens, 60 at most.*models\[\]\.context"),
        ([[1]] * (INPUTS_MAX + 1), "too_many", str(INPUTS_MAX)),
    ],
)
def test_what_cannot_be_embedded_is_refused_with_its_place(texts: list[list[int]], code: str, says: str) -> None:
    embedder = Embedder(FakeEncoder(), "mean", remedy="raise models[].context")
    with pytest.raises(Rejected, match=says) as caught:
        embedder.add("r", lists(*texts))
    assert caught.value.code == code
    assert not embedder.busy


def test_close_frees_and_forgets() -> None:
    encoder = FakeEncoder()
    embedder = Embedder(encoder, "mean")
    embedder.add("r", lists([1] * 60))
    embedder.step(8)
    embedder.close()
    assert (encoder.cells, embedder.busy) == (0, False)


def shares(lefts: list[int], budget: int, *, whole: bool = False, sequences: int = 9) -> list[Share]:
    return pack([Prompt(i, n) for i, n in enumerate(lefts)], budget, sequences, whole=whole)


def test_the_first_text_gets_half_and_what_the_others_leave() -> None:
    assert shares([100], 10) == [Share(0, 10)]
    assert shares([100, 4, 3, 1], 10) == [Share(0, 5), Share(1, 4), Share(3, 1)]
    assert shares([100, 50], 10) == [Share(0, 10)]
    assert shares([3, 5, 9], 10) == [Share(0, 3), Share(1, 5)]


def test_a_text_that_must_be_whole_is_whole() -> None:
    assert shares([100, 4], 10, whole=True) == [Share(0, 100)]
    assert shares([6, 5, 4], 10, whole=True) == [Share(0, 6), Share(2, 4)]
