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
    """Tokens of one sequence in a batch, from position `start` on; behind the last `want` of them is sampled."""

    seq: int
    start: int
    tokens: array[int]
    want: int


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
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    bias: tuple[tuple[int, float], ...] = ()
    """Added to the logits of these tokens."""
    logprobs: int = -1
    """Tell so many likeliest tokens with each chosen one; -1: no probabilities at all."""
    constraint: str = ""
    """A grammar that the answer must follow, as `constrain` writes it; empty: none."""


class Sampled(Struct, frozen=True):
    """A chosen token; with `spec.logprobs >= 0` its log probability and the likeliest tokens with theirs."""

    token: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


State = bytes | bytearray | memoryview


class Sampler(Protocol):
    """The state of one answer's sampling: what it has chosen counts for what it chooses next."""

    def forced(self) -> Sequence[int]:
        """Tokens that must come next, where its constraint leaves no choice; often none."""

    def accept(self, tokens: Sequence[int]) -> None:
        """Tell it tokens that stand before the answer, for the penalties."""

    def close(self) -> None: ...


class Machine(Protocol):
    """A loaded model with one context of `cells` cells for `sequences` sequences."""

    cells: int
    sequences: int
    batch_max: int
    wants_max: int
    """Tokens of one batch behind which may be sampled."""

    def compute(self, rows: Sequence[Row]) -> None:
        """Decode a batch; raises `NoCells` or `StepFailed`."""

    def sample(self, row: int, token: int, sampler: Sampler) -> Sampled:
        """What comes behind a token of a row of the last `compute`, as the sampler chooses; it has then accepted it.

        `token` counts the row's `want` last tokens from 0.
        """

    def sampler(self, spec: SamplerSpec) -> Sampler:
        """Raises `Rejected` for a constraint that cannot be followed."""

    def save(self, seq: int) -> State:
        """The state of a sequence, for `restore`; empty when it cannot be had."""

    def restore(self, seq: int, state: State) -> bool:
        """Give `seq`, which is empty, a saved state in cells of its own; False when there is no room for it."""

    def use_adapter(self, name: str) -> None:
        """Compute the next batches with this LoRA adapter of the model beside those that are always on."""

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
