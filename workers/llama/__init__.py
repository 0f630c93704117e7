"""The llama backend: GGUF models on llama.cpp with continuous batching.

A job goes add → prompt (template, tokens, what fits) → engine (step loop) → pieces. This file joins the parts; it
computes nothing. What always holds: a bad model file or setting is a `ConfigError` or `Untrusted` at load, a bad
request is one failed job, and `close` gives back all memory.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from msgspec import Struct
from msgspec.structs import replace

from schemas.errors import ConfigError, Rejected, RoostError
from schemas.gguf import Header
from schemas.message import Kind
from schemas.strict import bytes_of
from workers import Ability, BackendSettings, BatchBackend, Demand, Job, Piece
from workers.llama.chat import Chat
from workers.llama.embedding.embedder import Embedder
from workers.llama.engine.loop import QUIET_STEP_S, STEP_S, Engine, failed
from workers.llama.engine.paging import Pages
from workers.llama.engine.threads import ThreadChoice, allowed
from workers.llama.fitting import file, tuned
from workers.llama.fitting.plan import Plan, plan
from workers.llama.fitting.sizes import sizes
from workers.llama.fitting.texts import Texts, texts, whole
from workers.llama.jobs import Jobs
from workers.llama.prompts.prompt import Prompts
from workers.llama.prompts.template import ChatTemplate
from workers.llama.sampling import wishes
from workers.llama.settings import LlamaSettings

if TYPE_CHECKING:
    from workers.llama.native.native import NativeMachine, NativeModel

log = logging.getLogger(__name__)

TRIAL_WINDOW = 256
EASED = 0.5
"""At this share of the machine and below, steps get longer as well."""


class _Chosen(Struct, frozen=True):
    """How to load what `path` means."""

    path: Path | None
    file: Path
    header: Header
    plan: Plan
    texts: Texts


class LlamaBackend(BatchBackend):
    """Serves `slots` conversations at once in one llama.cpp context."""

    Settings = LlamaSettings
    kinds = frozenset[Kind]({"chat", "completion", "embedding"})
    abilities = frozenset[Ability]({"tools", "format", "n", "logprobs", "logit_bias", "adapter"})
    slots = 8
    settings: LlamaSettings

    def __init__(self, settings: BackendSettings, slots: int | None = None) -> None:
        super().__init__(settings, slots)
        self._model: NativeModel | None = None
        self._machine: NativeMachine | None = None
        self._chat: Chat | None = None
        self._embedder: Embedder | None = None
        self._threads: ThreadChoice | None = None
        self._chosen: _Chosen | None = None
        self._cancellable: dict[str, Job] = {}
        self._refused: list[Piece] = []

    def demand(self, path: Path | None, limit: int | None) -> Demand:
        """Choose how to load the model within `limit` bytes, from the heads of its files alone."""
        from workers.llama.native import (
            build,  # takes half a second, and not every process that reads settings needs it
        )

        found = file.model_file(path)
        header = file.header(found)

        def planned(within: int | None, beside: int = 0) -> Plan:
            return plan(
                header,
                self.settings,
                self.slots,
                site=build.site(),
                limit=within,
                beside=beside,
                measured=tuned.chosen(found),
                pages=0 if whole(header) else bytes_of(self.settings.pages_ram, psutil.virtual_memory().total),
                adapters=[file.header(file.model_file(Path(adapter.path))) for adapter in self.adapters],
            )

        def embedding(window: int, room: int | None) -> Texts:
            named = self.settings.context is not None
            return texts(header, sizes(header, ()), window=window, named=named, room=room)

        made = planned(None)
        if limit is not None:
            made = planned(limit, embedding(made.window, 0).bytes)
        granted = embedding(made.window, None if limit is None else limit - made.demand.total)
        self._chosen = _Chosen(path, found, header, made, granted)
        what = f"{made.demand.what}; texts of up to {granted.tokens} tokens to embed"
        return replace(made.demand, compute=made.demand.compute + granted.bytes, what=what)

    def load(self, path: Path | None) -> None:
        """Check the file, map it, make the context and compute one token, so that the first request finds all warm."""
        from workers.llama.embedding.encoder import NativeEncoder, embeds_only, pooling_of
        from workers.llama.native import native

        if self._chosen is None or self._chosen.path != path:
            self.demand(path, None)
        assert self._chosen is not None
        found, header, made, granted = self._chosen.file, self._chosen.header, self._chosen.plan, self._chosen.texts
        try:
            self._model = model = self._weights(found, made)
            pooling = pooling_of(model)
            if pooling is not None:
                encoder = NativeEncoder(model, tokens_max=granted.tokens, threads=made.threads)
                self._embedder = Embedder(encoder, pooling, granted.remedy or made.remedy_window)
            if embeds_only(model):
                self.kinds, self.abilities = frozenset({"embedding"}), frozenset()
            else:
                self._chat = self._made_chat(model, made, header)
                if pooling is None:
                    self.kinds -= {"embedding"}
        except native.LoadFailed as error:
            self.close()
            raise ConfigError(f"{found}: {error}; {made.remedy_memory}") from None
        except BaseException:
            self.close()
            raise
        if self._chat is None and self._embedder is None:
            self.close()
            raise ConfigError(f"{found}: a model that ranks texts can neither answer nor embed; choose another")
        self.context = made.window
        self.version = file.version(found)

    def _weights(self, found: Path, made: Plan) -> NativeModel:
        from workers.llama.native import native

        model = native.NativeModel(
            found, gpu_layers=made.gpu_layers, mmap=made.mmap, repack=made.repack, devices=made.devices
        )
        self._model = model
        model.adapt([native.AdapterSpec(path=Path(a.path), name=a.name, scale=a.scale) for a in self.adapters])
        return model

    def _made_chat(self, model: NativeModel, made: Plan, header: Header) -> Chat:
        from workers.llama.native import native

        self._machine = native.NativeMachine(
            model,
            native.ContextSpec(
                cells=made.cells,
                sequences=made.sequences,
                batch_max=made.batch,
                threads=made.threads,
                kv_type=made.kv_type,
                flash=made.flash,
            ),
        )
        template = ChatTemplate(model.template(), model.token_text("bos"), model.token_text("eos"))
        prompts = Prompts(
            template.render,
            model.tokenise,
            made.window,
            bos=model.token_text("bos") if model.adds_bos else "",
            control=model.control,
            remedy=made.remedy_window,
            overflow=self.settings.overflow,
        )
        if self.settings.threads is None:
            self._threads = ThreadChoice(made.threads, len(allowed()))
        engine = Engine(
            self._machine,
            self._threads,
            pages=self._pages(made),
            reuse=model.reusable,
            draft=self.settings.draft,
        )
        engine.warm_up(model.tokenise("a", begin=False))
        jobs = Jobs(
            prompts,
            model,
            template.style,
            wishes.defaults(self.settings, header.meta),
            adapters=[a.name for a in self.adapters],
            max_tokens=self.settings.max_tokens,
            remedy=made.remedy_window,
        )
        return Chat(jobs, engine)

    def _pages(self, made: Plan) -> Pages:
        disk = bytes_of(self.settings.pages_disk, psutil.virtual_memory().total)
        return Pages(made.pages, disk, self.scratch if disk else None)

    def close(self) -> None:
        """Free samplers, contexts and model, in this order. May be called after a failed `load`."""
        for part in (self._chat, self._embedder, self._machine, self._model):
            if part is not None:
                part.close()
        self._chat = self._embedder = self._machine = self._model = None
        self._chosen = None  # the header holds the whole vocabulary

    def add(self, job: Job) -> None:
        if job.cancelled is not None:
            self._cancellable[job.request] = job
        if job.kind == "embedding":
            self._embed(job)
        elif self._chat is not None:
            self._chat.add(job)
        else:
            self._refuse(job, Rejected("this model makes embeddings and cannot answer", code="unsupported"))

    def _embed(self, job: Job) -> None:
        from workers.llama.embedding.encoder import tokens_of

        if self._embedder is None or self._model is None:
            self._refuse(job, Rejected("this model makes no embeddings", code="unsupported"))
            return
        try:
            self._embedder.add(job.request, tokens_of(self._model, job.inputs))
        except RoostError as error:
            self._refuse(job, error)

    def _refuse(self, job: Job, error: RoostError) -> None:
        self._refused.append(failed(job.request, error))

    def cancel(self, request: str) -> None:
        for part in (self._chat, self._embedder):
            if part is not None:
                part.cancel(request)

    def warm_up(self) -> None:
        if self._chat is not None and self._model is not None:
            self._chat.engine.warm_shapes(self._model.tokenise("a", begin=False)[:1], self.slots)

    def to_front(self) -> None:
        if self._chat is not None:
            self._chat.engine.forget_pace()

    @classmethod
    def prepare(cls) -> None:
        from workers.llama.native import native  # noqa: F401  loads the library, which takes half a second

    def for_trial(self) -> None:
        """A short window, and weights that stay in the file: whether that is sound does not depend on them."""
        self.slots = 1
        self.settings = replace(
            self.settings,
            context=min(self.settings.context or TRIAL_WINDOW, TRIAL_WINDOW),
            cache=TRIAL_WINDOW,
            batch=32,
            pages_ram="0",
            pages_disk="0",
            repack=False,
            mmap=True,
            gpu_layers=None,
            devices=("cpu",),
        )

    def ease(self, level: float) -> None:
        """Use about this share of the threads; well below the whole, take longer steps too."""
        if self._threads is not None:
            self._threads.limit = max(1, round(level * self._threads.most))
        if self._chat is not None:
            self._chat.engine.eased = level <= EASED

    def step(self) -> Sequence[Piece]:
        """One batch of answers, and one of embeddings."""
        for request, job in self._cancellable.items():
            if job.cancelled is not None and job.cancelled.is_set():
                self.cancel(request)
        pieces, self._refused = self._refused, []
        answering = self._chat is not None and self._chat.busy
        if self._chat is not None and answering:
            pieces += self._chat.step()
        if self._embedder is not None and self._embedder.busy:
            pieces += self._embedder.step(self._embedder.budget(STEP_S if answering else QUIET_STEP_S))
        for piece in pieces:
            if piece.finished is not None:
                self._cancellable.pop(piece.request, None)
        return pieces


__all__ = ["LlamaBackend", "LlamaSettings"]
