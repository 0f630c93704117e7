"""Embeddings: texts in, one vector of length 1 for each, many texts in one batch and many requests at once.

It shares the backend's step loop: `add`, `step` and `cancel` as the engine has them. Pure but for its `Encoder`
(`encoder.py` on llama.cpp). What always holds: every added request gets exactly one `Piece`, with `finished`; a
vector does not depend on the texts beside it (up to rounding); a long text comes in pieces where the model allows it,
and delays the texts behind it by half; between two steps at most one text has state in the encoder.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, islice, zip_longest
from typing import Any, Literal, Protocol

import numpy as np

from schemas.errors import Rejected, Retryable, RoostError
from schemas.message import Usage
from workers import Finished, Piece
from workers.llama.engine.machine import Row, StepFailed
from workers.llama.engine.pace import Pace
from workers.llama.engine.schedule import Prompt, Share, prompt_budget

log = logging.getLogger(__name__)

Pooling = Literal["mean", "first", "last"]
"""The vector of a text: the mean of its tokens' embeddings, or its first or last token's alone."""
Tokens = Sequence["array[int]"]

INPUTS_MAX = 2_048
"""Texts in one request; OpenAI's API takes as many."""
LOOK_MAX = 64
"""Texts that are looked at to fill a batch."""


class Encoder(Protocol):
    """What is needed of a model: a place for at most `sequences` texts at once."""

    whole: bool
    """A text must be in one batch, because its tokens see later ones."""
    sequences: int
    batch_max: int
    """Tokens in a batch, unless a single text that must be whole is longer."""
    tokens_max: int
    """Tokens of a text."""
    cells: int
    """Tokens of all texts together that are in it at once; `make_room` sees to that."""

    def make_room(self, tokens: int) -> None:
        """Be ready for texts of up to so many tokens; forgets unfinished ones. Raises `StepFailed` without memory."""

    def compute(self, rows: Sequence[Row]) -> Any:
        """The embeddings of all tokens of `rows`, one below the other; raises `StepFailed`. Valid until the next."""

    def forget(self, seq: int) -> None:
        """Free what is kept of the text in `seq`."""

    def rest(self) -> None:
        """Nobody waits: give back what an unusually long text took."""

    def close(self) -> None:
        """Free all; `make_room` begins anew."""


class Embedder:
    """Call `add`, `step` and `cancel` from one thread."""

    def __init__(
        self,
        encoder: Encoder,
        pooling: Pooling,
        remedy: str = "",
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`remedy`: what an operator can do about a text that is too long."""
        self._encoder = encoder
        self._pooling = pooling
        self._remedy = remedy or "choose a model with a longer context"
        self._requests: deque[_Request] = deque()
        self._ended: list[Piece] = []
        self._clock = clock
        self._pace = Pace()

    @property
    def busy(self) -> bool:
        return bool(self._requests or self._ended)

    def add(self, request: str, texts: Tokens) -> None:
        """Queue a request; raises `Rejected` with the index of the first text that cannot be embedded."""
        if not texts:
            raise Rejected("There is nothing to embed; send at least one text.", code="empty")
        if len(texts) > INPUTS_MAX:
            raise Rejected(f"{len(texts)} texts in one request, {INPUTS_MAX} at most; split it.", code="too_many")
        for i, tokens in enumerate(texts):
            if not tokens:
                raise Rejected(f"input[{i}] is empty; send some text or leave it out.", code="empty")
            if len(tokens) > self._encoder.tokens_max:
                raise Rejected(
                    f"input[{i}] is too long for the model: {len(tokens)} tokens, {self._encoder.tokens_max} at most. "
                    f"Split the text, or {self._remedy}.",
                    code="context_overflow",
                )
        self._requests.append(_Request(request, texts))

    def cancel(self, request: str) -> None:
        """End a request with the next step; an unknown one is ignored."""
        for r in [r for r in self._requests if r.id == request]:
            self._end(r, Finished(finish="cancelled"))

    def budget(self, target_s: float) -> int:
        """Tokens that a step can compute in so many seconds, as far as is known by now."""
        return prompt_budget(0, self._pace.most(target_s), self._encoder.batch_max)

    def step(self, budget_tokens: int) -> list[Piece]:
        """Compute one batch of at most so many tokens, more only where a single text must be whole.

        Returns the requests that ended: done, failed or cancelled.
        """
        if self._requests:
            self._advance(min(max(budget_tokens, 1), self._encoder.batch_max))
        if not self._requests:
            self._encoder.rest()
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """Free the encoder's memory; what is still queued is forgotten."""
        self._requests.clear()
        self._encoder.close()

    def _advance(self, budget: int) -> None:
        """Choose texts, compute them, and begin the next step with another request unless a text is unfinished."""
        texts = self._in_turn()
        if not texts[0].done:
            try:
                self._encoder.make_room(len(texts[0].tokens))
            except StepFailed as error:
                self._fail(texts[0], Retryable(f"there is no memory for embeddings now: {error}", code="no_memory"))
                return
        budget = min(budget, self._encoder.cells - texts[0].done)
        waiting = [Prompt(i, t.left) for i, t in enumerate(texts)]
        shares = pack(waiting, budget, self._encoder.sequences, whole=self._encoder.whole)
        self._compute([(texts[s.id], s.tokens) for s in shares])
        if self._requests and not self._requests[0].texts[0].done:
            self._requests.rotate(-1)

    def _in_turn(self) -> list[_Text]:
        """The next texts, one of each request in turn."""
        rounds = zip_longest(*(islice(r.texts, LOOK_MAX) for r in self._requests))
        return list(islice((t for t in chain.from_iterable(rounds) if t is not None), LOOK_MAX))

    def _compute(self, parts: list[tuple[_Text, int]]) -> None:
        """One batch. One that fails is tried again text by text, so that only the culprit's request fails."""
        rows = [Row(seq, t.done, t.tokens[t.done : t.done + n], 0) for seq, (t, n) in enumerate(parts)]
        begun = self._clock()
        try:
            found = self._encoder.compute(rows)
        except StepFailed as error:
            for seq, (text, _) in enumerate(parts):
                self._encoder.forget(seq)
                text.restart()
            if len(parts) > 1:
                for text, n in reversed(parts):  # the unfinished one last: the place 0 stays its own
                    if text.request in self._requests:
                        self._compute([(text, n)])
                return
            log.exception("request %s cannot be embedded", parts[0][0].request.id)
            self._fail(parts[0][0], RoostError(f"the model could not embed this text: {error}"))
            return
        self._pace.took(len(found), self._clock() - begun)
        end = 0
        for seq, (text, n) in enumerate(parts):
            begin, end = end, end + n
            text.take(found[begin:end], self._pooling)
            if not text.left:
                self._encoder.forget(seq)
                self._store(text)

    def _store(self, text: _Text) -> None:
        """The vector of a finished text; the last one ends its request."""
        vector = text.vector()
        if vector is None:
            self._fail(text, RoostError(f"the model computed no usable vector for input[{text.index}]"))
            return
        r = text.request
        r.texts.remove(text)
        r.vectors[text.index] = vector
        if not r.texts:
            self._end(r, Finished(usage=Usage(r.tokens), embeddings=tuple(r.vectors)))

    def _fail(self, text: _Text, error: RoostError) -> None:
        self._end(text.request, Finished(finish="error", error=error))

    def _end(self, request: _Request, finished: Finished) -> None:
        if request in self._requests:
            if any(t.done for t in request.texts):
                self._encoder.forget(0)
            self._requests.remove(request)
            self._ended.append(Piece(request.id, "", finished))


class _Request:
    """`vectors` fill as `texts`, which are still to do, empty."""

    def __init__(self, name: str, texts: Tokens) -> None:
        self.id = name
        self.tokens = sum(map(len, texts))
        self.texts = deque(_Text(self, i, tokens) for i, tokens in enumerate(texts))
        self.vectors = [b""] * len(texts)


class _Text:
    """One text; the encoder keeps the state of its first `done` tokens, and `_sum` what the vector is made of."""

    def __init__(self, request: _Request, index: int, tokens: array[int]) -> None:
        self.request = request
        self.index = index
        self.tokens = tokens
        self.restart()

    @property
    def left(self) -> int:
        return len(self.tokens) - self.done

    def restart(self) -> None:
        self.done = 0
        self._sum: Any = None

    def take(self, found: Any, pooling: Pooling) -> None:
        """The embeddings of the next tokens."""
        if pooling == "mean":
            total = found.sum(axis=0, dtype=np.float64)
            self._sum = total if self._sum is None else self._sum + total
        elif pooling == "last" or self._sum is None:
            self._sum = found[-1 if pooling == "last" else 0].astype(np.float64)
        self.done += len(found)

    def vector(self) -> bytes | None:
        """Little-endian float32 of length 1; None where the numbers are not finite or all zero."""
        norm = np.linalg.norm(self._sum)
        return (self._sum / norm).astype("<f4").tobytes() if np.isfinite(norm) and norm > 0 else None


def pack(texts: Sequence[Prompt], budget: int, sequences: int, *, whole: bool) -> list[Share]:
    """Which of `texts` (in turn) the next batch of `budget` tokens holds, and how many tokens of each.

    The first is always in it: in pieces of half the budget at least, or where `whole`, with all its tokens. The
    others are in it only with all they have, so that the first alone may be unfinished.
    """
    first = texts[0].left
    taken = first if whole else min(first, budget if len(texts) == 1 else (budget + 1) // 2)
    shares: list[Share] = []
    room = budget - taken
    for text in texts[1:]:
        if len(shares) + 1 < sequences and text.left <= room:
            shares.append(Share(text.id, text.left))
            room -= text.left
    return [Share(texts[0].id, min(first, taken + max(room, 0))), *shares]
