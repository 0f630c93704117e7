"""The backend where a worker has it: on a lane at low priority, in a trial, and taken down in the middle of a step."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import psutil
import pytest

from schemas.config import ModelConfig
from tests.workers.diffusion.asked import SMALL, job, loaded
from workers.diffusion import DiffusionBackend, DiffusionSettings
from workers.diffusion.threads import Threads
from workers.host.budget import measure
from workers.host.lane import Lane
from workers.host.priority import CAN_LOWER, LOW
from workers.host.slot import files_of
from workers.host.trials import Trials

LONG_S = 60.0


def nice_of_threads() -> dict[int, int]:
    """The nice value of each thread of this process, by its id."""
    found = {}
    for folder in Path("/proc/self/task").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        found[int(folder.name)] = int(fields[16])
    return found


@pytest.mark.skipif(not CAN_LOWER, reason="threads have no priority of their own on this system")
async def test_all_threads_that_compute_come_last(tiny_pipeline: Path) -> None:
    backend = DiffusionBackend(DiffusionSettings(**{**SMALL, "threads": 2}))
    lane = Lane("drawing", backend)
    before = set(nice_of_threads())
    try:
        await lane.load(tiny_pipeline)
        async for _ in lane.run(job(size="96x96", steps=2)):
            pass
        born = {thread: nice for thread, nice in nice_of_threads().items() if thread not in before}
        names = {thread.native_id: thread.name for thread in threading.enumerate()}
        computing = {thread: nice for thread, nice in born.items() if thread not in names}
        painters = [nice for thread, nice in born.items() if names.get(thread, "").startswith("painter-")]
        assert painters == [LOW]
        assert computing, "two threads were to compute"
        assert set(computing.values()) == {LOW}
    finally:
        await lane.close()


async def test_a_trial_loads_and_draws_within_its_limits(tiny_pipeline: Path) -> None:
    trials = Trials()
    try:
        model = ModelConfig(name="draw", type="diffusion", path=str(tiny_pipeline), settings={"resolution": "512x512"})
        assert await trials.run(files_of(model), "models[0]", measure(), limit=10**9, wait_s=LONG_S) > 0
    finally:
        trials.close()


async def test_closing_in_the_middle_of_a_picture_ends_thread_and_job(tiny_pipeline: Path) -> None:
    lane = Lane("drawing", DiffusionBackend(DiffusionSettings(**SMALL)))
    await lane.load(tiny_pipeline)
    pieces = lane.run(job(steps=150))
    assert (await anext(pieces)).progress is not None
    async with asyncio.timeout(10.0):
        await lane.close()
        last = [piece async for piece in pieces][-1]
    assert last.finished is not None
    assert last.finished.error is not None
    assert last.finished.error.code == "model_unloaded"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("painter-")]


def test_closing_gives_the_memory_back(tiny_pipeline: Path) -> None:
    taken = []
    for _ in range(3):
        backend = loaded(tiny_pipeline)
        list(backend.generate(job(steps=1)))
        backend.close()
        backend.close()
        taken.append(psutil.Process().memory_info().rss)
    assert taken[2] - taken[0] < 32_000_000


def test_fewer_threads_while_power_is_saved(tiny_pipeline: Path) -> None:
    import torch

    backend = loaded(tiny_pipeline, threads=4)
    used = []
    try:
        backend.add(job(steps=4))
        ended = False
        while not ended:
            ended = any(piece.finished is not None for piece in backend.step())
            used.append(backend._threads._set)
            backend.ease(0.25)
        assert used[0] == 4
        assert used[-1] == 1
        assert backend._painter is not None
        assert backend._painter.call(torch.get_num_threads) == 1
        backend.ease(1.0)
        list(backend.generate(job("again", steps=2)))
        assert backend._painter.call(torch.get_num_threads) == 4
    finally:
        backend.close()


def test_eased_to_nothing_one_thread_is_left() -> None:
    threads = Threads(8)
    threads.ease(0.0)
    assert threads.current == 1
    threads.ease(0.5)
    assert threads.current == 4
