"""Pictures: Roost's backend against the plain pipeline of diffusers in fp32, on the same weights, each in a process of
its own; and eight requests at once against one after the other.

The starter model, and a pipeline of the shape of Stable Diffusion 1.5 with random weights (`tests/tools/pipelines.py`,
written once, 3.4 GB of disk).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.drawer import Drawn
from benchmarks.models import MADE, ROOT, SPARE_BYTES
from benchmarks.pairs import Measured, in_turn, ratio, rounds
from benchmarks.result import Row, Unavailable, main, note

NAME = "pictures"
GOAL, GOAL_AT_ONCE = 0.6, 0.8
SIZE, GUIDANCE, AT_ONCE = "512x512", 5.0, 8
STEPS = {"starter": 20, "sd15": 4}
WARM = {"starter": 20, "sd15": 1}
"""Steps of the picture before. Where calling costs more than computing, as in a small model, both sides are quicker
in a process that has drawn one."""
SD15_BYTES = 4_300_000_000
CHILD_S = 1_800.0


def folder_of(shape: str) -> Path:
    """The pipeline's folder; raises `Unavailable`."""
    if shape == "starter":
        found = ROOT / "models" / "stable-diffusion" / "current"
        if not (found / "model_index.json").is_file():
            raise Unavailable(f"no model at {found}; `make model` puts the starter model there")
        return found
    from tests.tools import pipelines

    made = MADE / shape
    if not made.is_dir():
        MADE.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(MADE).free
        if free < SD15_BYTES + SPARE_BYTES:
            raise Unavailable(f"{MADE} has {free / 1e9:.1f} GB left; {SD15_BYTES / 1e9:.1f} GB are wanted")
        note(f"writing {made}, once")
        part = made.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        pipelines.make(part, "sd15")
        part.rename(made)
    return made


async def drawn(who: str, shape: str, pictures: int = 1, how: str = "together") -> Drawn:
    """What one process of `benchmarks.drawer` says."""
    folder, steps, warm = folder_of(shape), STEPS[shape], WARM[shape]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.drawer", who, str(folder), SIZE, str(steps), str(GUIDANCE), str(pictures),
        how, str(warm), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(CHILD_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"{who} ended with {process.returncode}")
    return msgspec.json.decode(out.splitlines()[-1], type=Drawn)


async def run(quick: bool) -> list[Row]:
    rows = []
    for shape in os.environ.get("ROOST_BENCH_PICTURES", "starter" if quick else ",".join(STEPS)).split(","):
        try:
            rows += await of_shape(shape, rounds(quick))
        except Unavailable as error:
            note(f"{NAME}: without {shape}: {error}")
    return rows


async def of_shape(shape: str, pairs: int) -> list[Row]:
    folder_of(shape)  # made here where it is not there, and not while the first is measured
    alone: dict[str, Callable[[], Awaitable[Drawn]]] = {
        who: partial(drawn, who, shape) for who in ("roost", "diffusers")
    }
    found = await in_turn(f"{NAME} {shape}", pairs, alone)
    rows = [*of_pair(shape, found), found.row(NAME)]
    if shape == "starter":
        many: dict[str, Callable[[], Awaitable[Drawn]]] = {
            how: partial(drawn, "roost", shape, AT_ONCE, how) for how in ("together", "apart")
        }
        found = await in_turn(f"{NAME} {shape}, {AT_ONCE} requests", pairs, many)
        times = {how: [one.whole_s for one in values] for how, values in found.values.items()}
        what = f"{shape}: {AT_ONCE} requests"
        rows += [
            Row(benchmark=NAME, what=f"{what} {how}", value=statistics.median(values), unit="s")
            for how, values in times.items()
        ]
        value = ratio(times["together"], times["apart"])
        rows.append(
            Row(benchmark=NAME, what=f"{what} at once ÷ one after the other", value=value, unit="×",
                goal=GOAL_AT_ONCE, least=False)
        )  # fmt: skip
    return rows


def of_pair(shape: str, found: Measured[Drawn]) -> list[Row]:
    rows, parts = [], {"a picture": "whole_s", "a step": "step_s"}
    for who, values in found.values.items():
        for what, field in parts.items():
            value = statistics.median(getattr(one, field) for one in values)
            rows.append(Row(benchmark=NAME, what=f"{shape}: {who}: {what}", value=value, unit="s"))
        peak = statistics.median(one.peak_bytes for one in values) / 1e6
        rows.append(Row(benchmark=NAME, what=f"{shape}: {who}: peak memory", value=peak, unit="MB"))
    for what, field in parts.items():
        ours, theirs = ([getattr(one, field) for one in found.values[who]] for who in ("roost", "diffusers"))
        value = ratio(ours, theirs)
        rows.append(
            Row(benchmark=NAME, what=f"{shape}: {what}: Roost ÷ diffusers in fp32", value=value, unit="×",
                goal=GOAL, least=False)
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    main(run)
