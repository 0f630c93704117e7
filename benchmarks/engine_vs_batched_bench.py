"""The engine alone ÷ llama-batched-bench, at 1, 4, 8 and 16 sequences, in turn on the same model file.

Both decode the same number of tokens behind prompts of the same length with the same threads; the engine also
samples (greedy), turns tokens into text and keeps its books, which llama-batched-bench does not. `-kvu` makes
llama-batched-bench use one pool of cells as the engine does. The engine's drafts are off. It computes prompts in pieces
of 240 ms on purpose, so that a cancel or a new request waits no longer; llama-batched-bench takes 512 tokens at a time.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from array import array
from functools import partial

from msgspec import Struct

from benchmarks.llama_server import own_environment, program
from benchmarks.models import THREADS, starter
from benchmarks.pairs import in_turn, ratio, rounds
from benchmarks.result import Row, main
from workers.llama.engine.loop import Engine
from workers.llama.engine.machine import SamplerSpec
from workers.llama.engine.request import Work
from workers.llama.native import native

NAME = "engine_vs_batched_bench"
WIDTHS = (1, 4, 8, 16)
PROMPT, TOKENS, CELLS, BATCH = 128, 48, 4096, 512
GOAL = 0.97


class Rates(Struct, frozen=True):
    """Tokens a second."""

    prompt: float
    answer: float


def engine_rates(model: native.NativeModel, width: int) -> Rates:
    """First the prompts, then all answers from the same step on."""
    spec = native.ContextSpec(cells=CELLS, sequences=2 * width + 2, batch_max=BATCH, threads=THREADS)
    machine = native.NativeMachine(model, spec)
    engine = Engine(machine, draft=False)
    try:
        engine.warm_up(array("i", [100]))
        prompts = [array("i", (random.randrange(100, model.vocabulary) for _ in range(PROMPT))) for _ in range(width)]
        begun = time.perf_counter()
        _serve(engine, prompts, 1)
        middle = time.perf_counter()
        _serve(engine, prompts, TOKENS)
        end = time.perf_counter()
    finally:
        engine.close()
        machine.close()
    return Rates(width * PROMPT / (middle - begun), width * TOKENS / (end - middle))


def _serve(engine: Engine, prompts: list[array[int]], tokens: int) -> None:
    for i, prompt in enumerate(prompts):
        engine.add(
            Work(
                request=f"{i}",
                tokens=prompt,
                operator=0,
                owner=f"{i}",
                conversation=f"{i}",
                sampler=SamplerSpec(ban_end=True),
                stops=(),
                reply_max=tokens,
            )
        )
    while engine.busy:
        engine.step()


async def ours(model: native.NativeModel, width: int) -> Rates:
    return await asyncio.to_thread(engine_rates, model, width)


async def theirs(width: int) -> Rates:
    """llama-batched-bench's S_PP and S_TG."""
    sizes = {"-c": CELLS, "-b": BATCH, "-ub": BATCH, "-npp": PROMPT, "-ntg": TOKENS, "-npl": width, "-t": THREADS,
             "-tb": THREADS}  # fmt: skip
    words = (str(word) for pair in sizes.items() for word in pair)
    process = await asyncio.create_subprocess_exec(
        program("llama-batched-bench"), "-m", starter(), "-kvu", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=own_environment(),
    )  # fmt: skip
    out, err = await process.communicate()
    lines = [line.split("|") for line in out.decode().splitlines() if line.startswith("|")]
    if process.returncode != 0 or len(lines) < 3:  # the head, a line, the numbers
        raise RuntimeError(f"llama-batched-bench gave no numbers: {err.decode(errors='replace')[-300:]}")
    values = dict(zip((cell.strip() for cell in lines[0]), (cell.strip() for cell in lines[-1]), strict=True))
    return Rates(float(values["S_PP t/s"]), float(values["S_TG t/s"]))


async def run(quick: bool) -> list[Row]:
    rows = []
    model = native.NativeModel(starter())
    try:
        for width in WIDTHS:
            pair = {"engine": partial(ours, model, width), "peer": partial(theirs, width)}
            found = await in_turn(f"{NAME}, {width}", rounds(quick), pair)
            rows += _rows(width, found.values["engine"], found.values["peer"])
            rows.append(found.row(NAME))
    finally:
        model.close()
    return rows


def _rows(width: int, mine: list[Rates], peer: list[Rates]) -> list[Row]:
    def row(what: str, value: float, unit: str, goal: float | None = None) -> Row:
        return Row(benchmark=NAME, what=f"{width}: {what}", value=value, unit=unit, goal=goal)

    answers = ratio([r.answer for r in mine], [r.answer for r in peer])
    prompts = ratio([r.prompt for r in mine], [r.prompt for r in peer])
    return [
        row("engine", statistics.median(r.answer for r in mine), "tokens/s"),
        row("llama-batched-bench", statistics.median(r.answer for r in peer), "tokens/s"),
        row("engine ÷ llama-batched-bench", answers, "×", GOAL),
        row("prompts: engine ÷ llama-batched-bench", prompts, "×"),
    ]


if __name__ == "__main__":
    main(run)
