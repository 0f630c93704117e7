"""What the engine needs of a model in a context: the seam between the step loop and llama.cpp.

`native.py` implements it on llama.cpp; the tests implement it with a few lines that check every position. No
logic here.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

PENALTY_TOKENS = 64
"""How far back the repeat penalty looks."""


class NoCells(Exception):
    """The context has no free cells for this batch; nothing was computed."""


class StepFailed(Exception):
    """The batch could not be computed; the cells of its sequences are in an unknown state behind their old ends."""


class Row(Struct, frozen=True):
    """Tokens of one sequence in a batch, from position `start` on; `want`: the last one's logits are sampled from."""

    seq: int
    start: int
    tokens: array[int]
    want: bool


class SamplerSpec(Struct, frozen=True, kw_only=True):
    """How one answer is sampled: everything resolved and in range. Temperature 0 is greedy."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int = 0
    ban_end: bool = False
    """Never choose a token that ends the answer (`ignore_eos`)."""


class Sampler(Protocol):
    """The state of one answer's sampling."""

    def accept(self, tokens: Sequence[int]) -> None:
        """Tell it tokens that stand before the answer, for the penalties."""

    def close(self) -> None: ...


class Machine(Protocol):
    """A loaded model with one context of `cells` cells for `sequences` sequences."""

    cells: int
    sequences: int
    batch_max: int

    def compute(self, rows: Sequence[Row]) -> None:
        """Decode a batch; raises `NoCells` or `StepFailed`."""

    def sample(self, picks: Sequence[tuple[int, Sampler]]) -> list[int]:
        """The next token after each given row (index into the last `compute`) by its sampler."""

    def sampler(self, spec: SamplerSpec) -> Sampler: ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Let `target`, which is empty, share the first `length` cells of `source`."""

    def cut(self, seq: int, keep: int) -> None:
        """Free the cells of `seq` from position `keep` on."""

    def use_threads(self, count: int) -> None:
        """Compute the next batches with so many threads."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token as text; control tokens have none."""

    def ends(self, token: int) -> bool:
        """Whether the token ends an answer."""
