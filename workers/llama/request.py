"""One request in the engine: what was asked, and how far it is. No logic of scheduling or cells."""

from __future__ import annotations

from array import array

from msgspec import Struct

from workers.llama.cache import OPERATOR
from workers.llama.machine import Sampler, SamplerSpec
from workers.llama.text import TextStream


class Work(Struct, frozen=True, kw_only=True):
    """A request, ready to compute.

    `operator`: leading tokens that are not the sender's words, but those of `above` it: the operator's, or those of
    the application that speaks for the sender.
    """

    request: str
    tokens: array[int]
    operator: int
    owner: str
    above: str = OPERATOR
    conversation: str
    sampler: SamplerSpec
    stops: tuple[str, ...]
    reply_max: int
    clipped: str = ""
    """Why the reply may end at `reply_max` earlier than was asked for: becomes a note."""
    notes: tuple[str, ...] = ()


class Running:
    """The state of one request. `tokens` is the prompt and the answer so far; the first `done` have cells."""

    def __init__(self, work: Work, order: int) -> None:
        self.work = work
        self.order = order
        self.tokens = work.tokens[:]
        self.prompt = len(work.tokens)
        self.seq = -1
        self.done = 0
        self.cached = -1
        self.sampler: Sampler | None = None
        self.text = TextStream(work.stops)
        self.shown = False

    @property
    def left(self) -> int:
        return len(self.tokens) - self.done

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt

    @property
    def answering(self) -> bool:
        return self.generated > 0 and self.left == 1
