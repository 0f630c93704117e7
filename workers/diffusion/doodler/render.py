"""Many drawings at once, by two processes."""

from collections.abc import Callable
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from workers.diffusion.doodler.draw import Pixels, pixels
from workers.diffusion.doodler.scene import Scene, training_scene

FEW = 200
"""So many are drawn at once where they are; more are worth two processes."""


def _drawn(job: tuple[Callable[[int], Scene], int, int]) -> Pixels:
    scene, seed, side = job
    return pixels(scene(seed), side)


def rendered(seeds: list[int], side: int, scene: Callable[[int], Scene] = training_scene) -> NDArray[np.uint8]:
    """Pictures of the scenes of these seeds, (n, side, side, 3) bytes."""
    jobs = [(scene, seed, side) for seed in seeds]
    if len(jobs) <= FEW:
        return np.stack([_drawn(job) for job in jobs])
    with get_context("spawn").Pool(2) as pool:
        return np.stack(pool.map(_drawn, jobs, chunksize=64))
