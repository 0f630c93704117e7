"""One request in the engine: what was asked, and how far it is. No logic of scheduling or cells."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from schemas.message import ToolCall
from workers.llama.engine.cache import OPERATOR
from workers.llama.engine.draft import Lookup
from workers.llama.engine.machine import Sampler, SamplerSpec
from workers.llama.engine.text import TextStream


class CallReader(Protocol):
    """Takes an answer's tool calls out of its text; see `tools.Calls`."""

    def feed(self, text: str) -> str: ...
    def close(self) -> tuple[str, tuple[ToolCall, ...]]: ...


class Work(Struct, frozen=True, kw_only=True):
    """A request, ready to compute.

    `operator`: leading tokens that are not the sender's words, but those of `above` it: the operator's, or those of
    the application that speaks for the sender. Where several answers are asked for, each is a work of its own with
    the same `request` and a `choice`.
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
    choice: int = 0
    adapter: str = ""
    calls: CallReader | None = None
    shown: Mapping[int, bytes] = {}
    """Control tokens that are text to `calls`: the marks of the model's way of calling."""
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
        self.lookup = Lookup()
        self.draft: array[int] = array("i")
        """Tokens that are computed behind the last one in this step, in the hope that they are the next ones."""
        self.forced = False
        """The draft comes from the constraint, which leaves no choice."""

    @property
    def left(self) -> int:
        return len(self.tokens) - self.done

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt

    @property
    def answering(self) -> bool:
        return self.generated > 0 and self.left == 1

    def read(self, piece: bytes) -> str:
        """Text that may be shown, of a token's bytes."""
        text = self.text.feed(piece)
        return self.work.calls.feed(text) if self.work.calls is not None else text

    def close(self) -> tuple[str, tuple[ToolCall, ...]]:
        """The rest of the text, and what the answer calls for."""
        text = self.text.close()
        if self.work.calls is None:
            return text, ()
        shown = self.work.calls.feed(text)
        rest, calls = self.work.calls.close()
        return shown + rest, calls
