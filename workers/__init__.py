"""Inference workers. This file is the public contract of a backend; every other file or folder is one backend.

What always holds: a backend is loaded, used and closed on its model's lane (its own thread or threads, which may be
others later on, one after the other), never on the event loop, and so must do nothing slow when it is created; it never
sees the bus, a session or a connector.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from msgspec import Struct

from schemas.config import AdapterConfig, BackendSettings
from schemas.errors import RoostError
from schemas.message import Attachment, Choice, Finish, Kind, Message, Sampling, TokenLogprob, ToolCall, Usage
from schemas.picture import Drawing, Drawn, Progress

__all__ = ["Ability", "Backend", "BackendSettings", "BatchBackend", "Demand", "Finished", "Job", "Picture", "Piece"]

Ability = Literal["tools", "format", "logprobs", "n", "logit_bias", "adapter", "files"]
"""What a request may ask for beyond text; one that its backend cannot do is refused before it gets there."""


class Job(Struct, frozen=True, kw_only=True):
    """One request as a backend sees it.

    `messages` is the whole conversation, oldest first, ending with the sender's newest message. For
    `kind="completion"` it is one user message whose text is the raw prompt. `tenant` names whose text it is:
    cached state that holds a sender's words must never be shared between tenants. A tenant may be a path
    `application/sender`: leading system messages that such a request brings are the application's own words, and
    their state may serve all tenants below it.
    """

    request: str
    messages: tuple[Message, ...]
    kind: Kind = "chat"
    """`chat`, `completion`, `embedding` or `image`."""
    inputs: tuple[str, ...] = ()
    """For `kind="embedding"`: the texts to embed."""
    tenant: str = ""
    conversation: str = ""
    sampling: Sampling = Sampling()
    drawing: Drawing = Drawing()
    """For `kind="image"`."""
    attachments: tuple[Attachment, ...] = ()
    files: tuple[bytes, ...] = ()
    """What the attachments hold, one for one, for a backend with the ability `files`. Nobody has looked into them: they
    may be anything, whatever `media_type` says."""
    shared: int = 0
    """Leading messages that are the operator's own words (system prompt): their state may serve all tenants."""
    cancelled: threading.Event | None = None

    @property
    def text(self) -> str:
        """The newest message's text."""
        return self.messages[-1].text if self.messages else ""


class Picture(Struct, frozen=True, kw_only=True):
    """A picture as a file; `drawn.model` and `drawn.version` are filled in by the host."""

    data: bytes
    media_type: str
    drawn: Drawn


class Finished(Struct, frozen=True, kw_only=True):
    """How a job ended. `error` makes it a failure of this job alone."""

    finish: Finish = "stop"
    usage: Usage = Usage()
    notes: tuple[str, ...] = ()
    error: RoostError | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    more: tuple[Choice, ...] = ()
    """Whole answers after the first, where `sampling.n` asked for several."""
    embeddings: tuple[bytes, ...] = ()
    pictures: tuple[Picture, ...] = ()


class Piece(Struct, frozen=True):
    """What one step brought for one job: text (whole characters only), and the end when it is done.

    `choice`: of which answer, where several were asked for. `logprobs` are those of the tokens that came.
    """

    request: str
    text: str = ""
    finished: Finished | None = None
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    progress: Progress | None = None
    """How far a picture is; told after the steps that the backend finds worth it, a few times a second at most."""


class Demand(Struct, frozen=True, kw_only=True):
    """Bytes that a model will take, told before it is loaded.

    `mapped` of the weights are pages of the file, which the system may drop and read again when memory is short.
    """

    weights: int = 0
    mapped: int = 0
    state: int = 0
    """Conversations: the context's cells, and what is paged out to RAM."""
    compute: int = 0
    what: str = ""
    """How it came to that, for people: `context 8192, 12288 cells of q8_0, all weights repacked`."""

    @property
    def total(self) -> int:
        return self.weights + self.state + self.compute

    @property
    def least(self) -> int:
        """What cannot be given up: without this much the machine would be out of memory."""
        return self.total - self.mapped


class Backend(ABC):
    """Answers one job at a time on one thread; `slots` threads of it when the model is configured so.

    The smallest backend implements `generate` alone. Raise a class of `schemas.errors` to fail the job with the
    reaction you want; any other exception fails the job as our bug.
    """

    Settings: ClassVar[type[BackendSettings]] = BackendSettings
    kinds: frozenset[Kind] = frozenset({"chat", "completion"})
    """Kinds of jobs that it takes; `load` may narrow or widen it."""
    abilities: frozenset[Ability] = frozenset()
    slots: int = 1
    """Jobs served at once, unless the configuration says otherwise."""
    adapters: tuple[AdapterConfig, ...] = ()
    """LoRA adapters of the model, with absolute paths; set before `demand`."""
    scratch: Path | None = None
    """A folder of its own, emptied before each load, that it may fill within its settings; set before `load`."""
    background: ClassVar[bool] = False
    """Its work may wait for that of other models: it is loaded when they are, and its lane's threads, and those that
    they start, come last."""
    version: str = ""
    release: str = ""
    """The release that its files belong to, if they do; set before `demand`."""
    context: int = 0
    """Tokens one conversation may hold; set by `load`; 0 is no limit."""

    def __init__(self, settings: BackendSettings, slots: int | None = None) -> None:
        self.settings = settings
        if slots is not None:
            self.slots = slots

    @property
    def full_version(self) -> str:
        """What is recorded with every answer: the backend's version, after that of the release if it is one."""
        return f"{self.release}+{self.version}" if self.release else self.version

    def demand(self, path: Path | None, limit: int | None) -> Demand:
        """What `load(path)` will take, from the head of the file alone, with all that is chosen by itself (context,
        KV type, repacking) chosen to fit `limit` bytes; `load` then keeps to that choice.

        Called on the lane before `load`. What cannot fit is told by its figures, not refused: the host decides.
        """
        return Demand()

    def load(self, path: Path | None) -> None:  # noqa: B027  nothing to load is a fine answer
        """Make ready to serve. `path` is resolved; None where the configuration gives none. May take minutes."""

    def warm_up(self) -> None:  # noqa: B027  a backend that is as quick the first time is fine
        """Compute a step at every batch shape that is in use, so that the first requests are as quick as later ones.

        Called after `load`, before any job, where a new version gets ready beside the one that serves.
        """

    def to_front(self) -> None:  # noqa: B027  nothing learned, nothing to forget
        """It serves from now on: what was learned of its pace before was learned at low priority."""

    @classmethod  # noqa: B027  most have nothing slow to import
    def prepare(cls) -> None:
        """Import what `load` needs. Called in a process that is kept ready for a trial."""

    def for_trial(self) -> None:  # noqa: B027  as it is configured is fine
        """Choose settings that need little time and memory: this one is loaded to see whether its file is sound,
        answers one prompt and ends. Called before `demand`.
        """

    def ease(self, level: float) -> None:  # noqa: B027  a backend that cannot work with less is fine
        """Use about this share of the machine's processors: 1.0 is all of it, and what holds until the first call.

        Called while jobs run, from another thread than the lane's: note it, return at once, and go by it from the next
        step on.
        """

    def close(self) -> None:  # noqa: B027  nothing to free is a fine answer
        """Free everything `load` took. Called once, on the lane, after the last job."""

    @abstractmethod
    def generate(self, job: Job) -> Iterator[str | Progress | Finished]:
        """Yield text as it comes, or how far a picture is; `Finished` last (or nothing, for a plain stop).

        Look at `job.cancelled` between pieces where a piece takes long.
        """


class BatchBackend(Backend):
    """Serves many jobs in one loop on one thread: the lane calls `add`, `step` and `cancel` in turn.

    `add` queues and returns at once (at most `slots` jobs are added and unfinished). `step` does a bounded
    amount of work (tens of milliseconds, so that a cancel takes effect soon) and returns what it brought;
    every added job gets exactly one `Piece` with `finished`. A step that raises fails all jobs in it.
    """

    @abstractmethod
    def add(self, job: Job) -> None: ...

    @abstractmethod
    def step(self) -> Sequence[Piece]: ...

    @abstractmethod
    def cancel(self, request: str) -> None:
        """End a job within one step: its last piece has `finish="cancelled"`. Unknown requests are ignored."""

    def generate(self, job: Job) -> Iterator[str | Progress | Finished]:
        """One job alone, for tests and tools."""
        self.add(job)
        while True:
            for piece in self.step():
                if piece.request != job.request:
                    continue
                if piece.text:
                    yield piece.text
                if piece.progress is not None:
                    yield piece.progress
                if piece.finished is not None:
                    yield piece.finished
                    return
