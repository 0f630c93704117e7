"""Inference workers. This file is the public contract of a backend; every other file or folder is one backend.

What always holds: a backend is loaded, used and closed on its model's lane (its own thread or threads), never on the
event loop, and so must do nothing slow when it is created; it never sees the bus, a session or a connector.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from msgspec import Struct

from schemas.config import BackendSettings
from schemas.errors import RoostError
from schemas.message import Attachment, Finish, Kind, Message, Sampling, Usage

__all__ = ["Backend", "BackendSettings", "BatchBackend", "Finished", "Job", "Piece"]


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
    tenant: str = ""
    conversation: str = ""
    sampling: Sampling = Sampling()
    attachments: tuple[Attachment, ...] = ()
    shared: int = 0
    """Leading messages that are the operator's own words (system prompt): their state may serve all tenants."""
    cancelled: threading.Event | None = None

    @property
    def text(self) -> str:
        """The newest message's text."""
        return self.messages[-1].text if self.messages else ""


class Finished(Struct, frozen=True, kw_only=True):
    """How a job ended. `error` makes it a failure of this job alone."""

    finish: Finish = "stop"
    usage: Usage = Usage()
    notes: tuple[str, ...] = ()
    error: RoostError | None = None


class Piece(Struct, frozen=True):
    """What one step brought for one job: text (whole characters only), and the end when it is done."""

    request: str
    text: str = ""
    finished: Finished | None = None


class Backend(ABC):
    """Answers one job at a time on one thread; `slots` threads of it when the model is configured so.

    The smallest backend implements `generate` alone. Raise a class of `schemas.errors` to fail the job with the
    reaction you want; any other exception fails the job as our bug.
    """

    Settings: ClassVar[type[BackendSettings]] = BackendSettings
    slots: int = 1
    """Jobs served at once, unless the configuration says otherwise."""
    version: str = ""
    context: int = 0
    """Tokens one conversation may hold; set by `load`; 0 is no limit."""

    def __init__(self, settings: BackendSettings, slots: int | None = None) -> None:
        self.settings = settings
        if slots is not None:
            self.slots = slots

    def load(self, path: Path | None) -> None:  # noqa: B027  nothing to load is a fine answer
        """Make ready to serve. `path` is resolved; None where the configuration gives none. May take minutes."""

    def close(self) -> None:  # noqa: B027  nothing to free is a fine answer
        """Free everything `load` took. Called once, on the lane, after the last job."""

    @abstractmethod
    def generate(self, job: Job) -> Iterator[str | Finished]:
        """Yield text as it comes; `Finished` last (or nothing, for a plain stop).

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

    def generate(self, job: Job) -> Iterator[str | Finished]:
        """One job alone, for tests and tools."""
        self.add(job)
        while True:
            for piece in self.step():
                if piece.request != job.request:
                    continue
                if piece.text:
                    yield piece.text
                if piece.finished is not None:
                    yield piece.finished
                    return
