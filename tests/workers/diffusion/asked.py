"""Jobs for the diffusion backend, and what they are answered."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from schemas.message import Message, Sampling
from schemas.picture import Drawing, Progress
from workers import Finished, Job
from workers.diffusion import DiffusionBackend, DiffusionSettings

STEPS_MAX = 20_000
SMALL: dict[str, Any] = {"resolution": "64x64", "threads": 1, "precision": "float32", "steps": 3, "preview_every_s": 0}


def loaded(path: Any, slots: int | None = None, adapters: Any = (), **settings: Any) -> DiffusionBackend:
    backend = DiffusionBackend(DiffusionSettings(**{**SMALL, **settings}), slots)
    backend.adapters = adapters
    backend.demand(path, None)
    backend.load(path)
    return backend


def job(request: str = "r", text: str = "a red boat", files: tuple[bytes, ...] = (), **more: Any) -> Job:
    """Fields of `Drawing` and of `Sampling` among `more`."""
    drawing = {key: more.pop(key) for key in list(more) if key in Drawing.__struct_fields__}
    sampling = {"seed": 5, **{key: more.pop(key) for key in list(more) if key in Sampling.__struct_fields__}}
    return Job(
        request=request,
        messages=(Message("user", text),),
        kind=more.pop("kind", "image"),
        sampling=Sampling(**sampling),
        drawing=Drawing(**drawing),
        files=files,
        **more,
    )


class Told:
    """What came for a job."""

    def __init__(self) -> None:
        self.progress: list[Progress] = []
        self.finished = Finished(finish="error")


def serve(backend: DiffusionBackend, *jobs: Job, then: Callable[[int], None] | None = None) -> dict[str, Told]:
    """All jobs at once; each must end exactly once. `then` is called before each step, with its number."""
    told = {each.request: Told() for each in jobs}
    waiting = set(told)
    for each in jobs:
        backend.add(each)
    for number in range(STEPS_MAX):
        if then is not None:
            then(number)
        for piece in backend.step():
            assert piece.request in waiting, "a piece after the end"
            if piece.progress is not None:
                told[piece.request].progress.append(piece.progress)
            if piece.finished is not None:
                told[piece.request].finished = piece.finished
                waiting.remove(piece.request)
        if not waiting:
            return told
    raise AssertionError(f"these have not ended: {waiting}")


def ask(backend: DiffusionBackend, **asked: Any) -> Finished:
    return serve(backend, job(**asked))["r"].finished


def picture(finished: Finished, number: int = 0) -> Any:
    """As numbers; fails with the error where there is none."""
    assert finished.error is None, finished.error
    with Image.open(io.BytesIO(finished.pictures[number].data)) as opened:
        return np.asarray(opened).astype(int)


def png(size: tuple[int, int] = (80, 60), colour: str = "red", mode: str = "RGB", format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, format)
    return out.getvalue()
