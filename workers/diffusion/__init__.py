"""The diffusion backend: pictures by any local folder in the layout of diffusers.

A job goes add → wish (what is asked for, checked) → schedule (what is computed together) → round, on the painter's
thread → pieces. This file joins the parts; it computes nothing. What always holds: nothing is fetched from a network;
a bad folder or setting is a `ConfigError` or `Untrusted` at load, a lack of memory there a `MemoryError`; a bad request
is one failed job, and `close` gives back the memory and the thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from schemas.errors import Retryable, RoostError
from schemas.message import Kind
from workers import Ability, BackendSettings, BatchBackend, Demand, Job, Piece
from workers.diffusion import adapters, folder, memory, offline, precision, sizes
from workers.diffusion.painter import Painter
from workers.diffusion.preview import Pace
from workers.diffusion.settings import DiffusionSettings, Precision
from workers.diffusion.threads import Threads
from workers.diffusion.version import version

if TYPE_CHECKING:
    from workers.diffusion.pipeline import Pipeline
    from workers.diffusion.rounds import Rounds
    from workers.diffusion.wishes import Wishes

log = logging.getLogger(__name__)

TRIAL_CELLS = 8
"""A side of the picture that a trial draws, in cells of what is denoised."""


class _Chosen(Struct, frozen=True):
    """How to load what `path` means."""

    path: Path | None
    folder: folder.Folder
    settings: DiffusionSettings
    plan: sizes.Plan
    precision: Precision
    device: str


class DiffusionBackend(BatchBackend):
    """Serves `slots` requests; those that agree are computed together."""

    Settings = DiffusionSettings
    kinds = frozenset[Kind]({"image"})
    abilities = frozenset[Ability]({"n", "adapter", "files"})
    slots = 8
    background = True
    settings: DiffusionSettings

    def __init__(self, settings: BackendSettings, slots: int | None = None) -> None:
        super().__init__(settings, slots)
        self._chosen: _Chosen | None = None
        self._painter: Painter | None = None
        self._pipeline: Pipeline | None = None
        self._rounds: Rounds | None = None
        self._wishes: Wishes | None = None
        self._threads = Threads(self.settings.threads)
        self._pace = Pace(self.settings.preview_every_s)
        self._trial = False

    @classmethod
    def prepare(cls) -> None:
        offline.libraries()

    def for_trial(self) -> None:
        """The smallest picture, without previews: whether the files are sound does not depend on more."""
        self._trial = True
        self.slots = 1
        self.settings = replace(self.settings, batch=1, previews=False, steps=1, pixels_max=None)

    def ease(self, level: float) -> None:
        self._threads.ease(level)

    def demand(self, path: Path | None, limit: int | None) -> Demand:
        """Look at the folder, and choose precision and batch; the weights are not read."""
        found = folder.look(path)
        offline.libraries()
        if self._trial:
            side = TRIAL_CELLS * sizes.factor(found)
            self.settings = replace(self.settings, resolution=f"{side}x{side}")
        device = precision.device_of(self.settings)
        chosen = precision.precision_of(self.settings, device)
        made = sizes.plan(
            found,
            self.settings,
            precision_bytes=precision.BYTES[chosen],
            precision=chosen,
            device=device,
            adapters_bytes=adapters.check(self.adapters),
            limit=sizes.within(limit, precision.card_free(device)),
            mapped=self._trial,
        )
        self._chosen = _Chosen(path, found, self.settings.advised(found.advice), made, chosen, device)
        return made.demand

    def load(self, path: Path | None) -> None:
        """Check the folder, load it on a painter's thread of its own, and fit the previews."""
        if self._chosen is None or self._chosen.path != path:
            self.demand(path, None)
        assert self._chosen is not None
        chosen = self._chosen
        self._painter = Painter(f"painter-{chosen.folder.path.name}")
        try:
            self._pipeline = pipeline = self._painter.call(lambda: self._loaded(chosen))
        except BaseException:
            self.close()
            raise
        self.version = version(chosen.folder)
        if not pipeline.can.starts:
            self.abilities -= {"files"}
        self._serve(chosen, pipeline)

    def _loaded(self, chosen: _Chosen) -> Pipeline:
        from workers.diffusion.pipeline import Pipeline

        assert self._painter is not None
        self._threads.use()
        shown = chosen.path or chosen.folder.path
        try:
            made = Pipeline(
                chosen.folder,
                shown,
                chosen.settings,
                chosen.plan,
                chosen.precision,
                chosen.device,
                self.adapters,
                self._painter.look,
            )
        except RuntimeError as error:  # after the weights are there: the previews are fitted
            memory.check(error, str(shown))
            raise
        if not self._trial:
            made.hasten()
        return made

    def _serve(self, chosen: _Chosen, pipeline: Pipeline) -> None:
        from workers.diffusion.round import Round, Row
        from workers.diffusion.rounds import Rounds
        from workers.diffusion.wishes import Key, Wishes

        def made(key: Key, rows: Sequence[Row]) -> Round:
            return Round(key, rows, pipeline, self.full_version, self._pace, self._threads)

        assert self._painter is not None
        settings = replace(chosen.settings, pixels_max=chosen.plan.largest)
        self._wishes = Wishes(settings, pipeline.can, pipeline.schedulers, pipeline.words)
        self._rounds = Rounds(self._painter, made, lambda key: chosen.plan.room(key.pixels))

    def warm_up(self) -> None:
        """A step of one picture of the usual size."""
        if self._rounds is None:
            return
        from schemas.message import Message, Sampling
        from schemas.picture import Drawing

        job = Job(
            request="warm-up",
            messages=(Message("user", "a"),),
            kind="image",
            sampling=Sampling(seed=0),
            drawing=Drawing(steps=1),
        )
        for _ in self.generate(job):
            pass

    def add(self, job: Job) -> None:
        if self._rounds is None or self._wishes is None:
            raise Retryable("the model is not loaded", code="model_unloaded")
        try:
            self._rounds.add(job, self._wishes.of(job))
        except RoostError as error:
            self._rounds.refuse(job.request, error)

    def step(self) -> Sequence[Piece]:
        return self._rounds.step() if self._rounds is not None else ()

    def cancel(self, request: str) -> None:
        if self._rounds is not None:
            self._rounds.cancel(request)

    def close(self) -> None:
        """Leave what is being computed, end the painter's thread and free the weights."""
        painter, pipeline = self._painter, self._pipeline
        self._painter = self._pipeline = self._rounds = self._wishes = self._chosen = None
        if painter is not None:
            painter.close()
        if pipeline is not None:
            pipeline.close()


__all__ = ["DiffusionBackend", "DiffusionSettings"]
