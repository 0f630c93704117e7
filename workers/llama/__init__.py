"""The llama backend: GGUF models on llama.cpp with continuous batching.

A job goes add → prompt (template, tokens, what fits) → engine (step loop) → pieces. This file joins the parts
and holds the settings; it computes nothing. What always holds: a bad model file or setting is a `ConfigError` or
`Untrusted` at load, a bad request is one failed job, and `close` gives back all memory.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from schemas.errors import ConfigError, RoostError
from workers import BackendSettings, BatchBackend, Finished, Job, Piece
from workers.llama import file, sampling
from workers.llama.cache import OPERATOR
from workers.llama.engine import Engine, failed
from workers.llama.plan import plan
from workers.llama.prompt import Prompt, Prompts, system_length
from workers.llama.request import Work
from workers.llama.template import ChatTemplate
from workers.llama.threads import ThreadChoice

if TYPE_CHECKING:
    from workers.llama.native import NativeMachine, NativeModel

log = logging.getLogger(__name__)

PREPARED_CHARS_MAX = 20_000
"""Characters of new requests that one step turns into tokens; more waits for the next, so that steps stay short."""

Positive = Annotated[int, Meta(ge=1)]


class LlamaSettings(BackendSettings, frozen=True, kw_only=True):
    """What `models[]` of `type: llama` may say beside the common fields. `None` is chosen for the model and machine."""

    max_tokens: Positive = 2048
    """Tokens of a reply where the request names no limit."""
    context: Annotated[int, Meta(ge=64)] | None = None
    """Window of one conversation in tokens."""
    cache: Annotated[int, Meta(ge=64)] | None = None
    """Cells of all conversations together, running and idle."""
    threads: Positive | None = None
    """Threads that compute; by default all cores, or one fewer while that is faster beside other programs."""
    batch: Annotated[int, Meta(ge=32, le=4096)] = 512
    """Tokens computed in one step at most."""
    gpu_layers: Annotated[int, Meta(ge=-1)] = 0
    """Layers on the graphics card; -1 for all."""
    mmap: bool = True
    """Map the file instead of reading it: quicker, and shared between processes."""
    kv_type: Literal["f16", "q8_0", "f32"] = "f16"
    """How the context is stored; `q8_0` halves it."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None


class LlamaBackend(BatchBackend):
    """Serves `slots` conversations at once in one llama.cpp context."""

    Settings = LlamaSettings
    slots = 8
    settings: LlamaSettings

    def __init__(self, settings: BackendSettings, slots: int | None = None) -> None:
        super().__init__(settings, slots)
        self._model: NativeModel | None = None
        self._machine: NativeMachine | None = None
        self._fresh: deque[Job] = deque()
        self._cancelled: set[str] = set()
        self._cancellable: dict[str, Job] = {}

    def load(self, path: Path | None) -> None:
        """Check the file, map it, make the context and compute one token, so that the first request finds all warm."""
        from workers.llama import native  # takes half a second, and not every process that reads settings needs it

        self._path = file.model_file(path)
        header = file.header(self._path)
        self._defaults = sampling.defaults(self.settings, header.meta)
        self._plan = plan(header, self.settings, self.slots)
        try:
            self._model = native.NativeModel(self._path, gpu_layers=self.settings.gpu_layers, mmap=self.settings.mmap)
            spec = native.ContextSpec(
                cells=self._plan.cells,
                sequences=self._plan.sequences,
                batch_max=self.settings.batch,
                threads=self._plan.threads,
                kv_type=self.settings.kv_type,
            )
            self._machine = native.NativeMachine(self._model, spec)
        except native.LoadFailed as error:
            self.close()
            raise ConfigError(f"{self._path}: {error}; {self._plan.remedy_memory}") from None
        if not self._model.answers:
            self.close()
            raise ConfigError(f"{self._path}: an encoder model cannot answer; choose a text generation model")
        model = self._model
        template = ChatTemplate(model.template(), model.token_text("bos"), model.token_text("eos"))
        self._prompts = Prompts(
            template.render,
            model.tokenise,
            self._plan.window,
            bos=model.token_text("bos") if model.adds_bos else "",
            control=model.control_texts,
            remedy=self._plan.remedy_window,
        )
        self._engine = Engine(
            self._machine,
            ThreadChoice(self._plan.threads, self._plan.threads_fewer),
            reuse=self._model.reusable,
        )
        self._engine.warm_up(model.tokenise("a", begin=False))
        self.context = self._plan.window
        self.version = file.version(self._path)

    def close(self) -> None:
        """Free samplers, context and model, in this order. May be called after a failed `load`."""
        engine = self.__dict__.pop("_engine", None)
        if engine is not None:
            engine.close()
        for part in (self._machine, self._model):
            if part is not None:
                part.close()
        self._machine = self._model = None

    def add(self, job: Job) -> None:
        self._fresh.append(job)
        if job.cancelled is not None:
            self._cancellable[job.request] = job

    def cancel(self, request: str) -> None:
        for job in self._fresh:
            if job.request == request:
                self._cancelled.add(request)
                return
        self._engine.cancel(request)

    def step(self) -> Sequence[Piece]:
        """Turn new jobs into prompts, then compute one batch."""
        for request, job in self._cancellable.items():
            if job.cancelled is not None and job.cancelled.is_set():
                self.cancel(request)
        pieces = self._prepare()
        pieces.extend(self._engine.step())
        for piece in pieces:
            if piece.finished is not None:
                self._cancellable.pop(piece.request, None)
        return pieces

    def _prepare(self) -> list[Piece]:
        """Hand new jobs to the engine; one that cannot be prepared fails alone."""
        pieces = []
        chars = 0
        while self._fresh and chars < PREPARED_CHARS_MAX:
            job = self._fresh.popleft()
            chars += sum(len(m.text) for m in job.messages)
            if job.request in self._cancelled:
                self._cancelled.discard(job.request)
                pieces.append(Piece(job.request, "", Finished(finish="cancelled")))
                continue
            try:
                self._engine.add(self._work(job))
            except RoostError as error:
                pieces.append(failed(job.request, error))
            except Exception as error:
                log.exception("request %s cannot be prepared", job.request)
                pieces.append(failed(job.request, RoostError(f"this request could not be prepared: {error}")))
        return pieces

    def _work(self, job: Job) -> Work:
        wish = job.sampling
        spec = sampling.resolve(wish, self._defaults)
        wanted = max(wish.max_tokens or self.settings.max_tokens, 1)
        if job.kind == "completion":
            prompt = self._prompts.raw(job.text, wanted)
        else:
            prompt = self._prompts.chat(job.messages, wanted, job.shared or applications(job))
        room = self._plan.window - len(prompt.tokens)
        return Work(
            request=job.request,
            tokens=prompt.tokens,
            operator=prompt.operator,
            owner=owner(job),
            above=OPERATOR if job.shared else owner(job).rpartition("/")[0],
            conversation=job.conversation,
            sampler=spec,
            stops=wish.stop,
            reply_max=min(wanted, room),
            clipped=self._clipped(prompt) if room < wanted else "",
            notes=prompt.notes,
        )

    def _clipped(self, prompt: Prompt) -> str:
        return (
            f"The answer was cut because the window is full: prompt {len(prompt.tokens)} tokens, "
            f"window {self._plan.window}; {self._plan.remedy_window}."
        )


def applications(job: Job) -> int:
    """Leading system messages that are the words of the application above the sender; none without one."""
    return system_length(job.messages) if "/" in job.tenant else 0


def owner(job: Job) -> str:
    """Whose cells a job's words are: its tenant's, or nobody else's at all when it names none."""
    if job.tenant:
        return f"tenant {job.tenant}"
    return f"conversation {job.conversation}" if job.conversation else f"request {job.request}"
