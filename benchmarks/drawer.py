"""One program that draws, a child of the picture benchmarks: Roost's backend, or the plain pipeline of diffusers.

    python -m benchmarks.drawer roost|diffusers FOLDER SIZE STEPS GUIDANCE PICTURES together|apart WARM

Prints one line of JSON (`Drawn`). One picture of WARM steps comes first, and is not counted.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

PROMPT = "a red boat under a yellow sun"
KIB = 1024


class Drawn(Struct, frozen=True):
    """Seconds from the first prompt to the last picture, and of one step more where a single one is drawn; bytes of
    memory at most."""

    whole_s: float
    step_s: float
    peak_bytes: int


class Wish(Struct, frozen=True):
    """What is drawn how often."""

    size: str
    steps: int
    guidance: float
    pictures: int
    together: bool
    warm: int


Draw = Callable[[int, list[int]], None]
"""Draw pictures of so many steps with these numbers, together."""


def roost(folder: Path, wish: Wish) -> Draw:
    """All jobs are added at once."""
    from schemas.message import Message, Sampling
    from schemas.picture import Drawing
    from workers import Job
    from workers.diffusion import DiffusionBackend

    backend = DiffusionBackend(DiffusionBackend.Settings(resolution=wish.size), max(1, wish.pictures))
    backend.demand(folder, None)
    backend.load(folder)

    def job(number: int, steps: int) -> Job:
        return Job(
            request=f"r{number}-{steps}", messages=(Message("user", PROMPT),), kind="image",
            sampling=Sampling(seed=number), drawing=Drawing(size=wish.size, steps=steps, guidance=wish.guidance),
        )  # fmt: skip

    def draw(steps: int, numbers: list[int]) -> None:
        left = set()
        for number in numbers:
            one = job(number, steps)
            backend.add(one)
            left.add(one.request)
        while left:
            for piece in backend.step():
                if piece.finished is not None:
                    if piece.finished.error is not None:
                        raise piece.finished.error
                    left.discard(piece.request)

    return draw


def diffusers(folder: Path, wish: Wish) -> Draw:
    """As its documentation has it: `from_pretrained`, then one call for all pictures."""
    import os

    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    width, height = (int(side) for side in wish.size.split("x"))

    def draw(steps: int, numbers: list[int]) -> None:
        pipe(
            [PROMPT] * len(numbers), width=width, height=height, num_inference_steps=steps,
            guidance_scale=wish.guidance, generator=[torch.Generator().manual_seed(number) for number in numbers],
        )  # fmt: skip

    return draw


def seconds(draw: Draw, steps: int, batches: list[list[int]]) -> float:
    """One batch after the other."""
    begun = time.perf_counter()
    for batch in batches:
        draw(steps, batch)
    return time.perf_counter() - begun


def main() -> None:
    who, folder, size, steps, guidance, pictures, how, warm = sys.argv[1:]
    wish = Wish(size, int(steps), float(guidance), int(pictures), how == "together", int(warm))
    draw = (roost if who == "roost" else diffusers)(Path(folder), wish)
    numbers = list(range(wish.pictures))
    draw(wish.warm, [0])
    whole = seconds(draw, wish.steps, [numbers] if wish.together else [[number] for number in numbers])
    step = (whole - seconds(draw, 1, [[0]])) / (wish.steps - 1) if wish.pictures == 1 else 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    print(msgspec.json.encode(Drawn(whole, step, peak)).decode())


if __name__ == "__main__":
    main()
