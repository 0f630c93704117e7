"""The load of `chat_load_vs_llama_server` against one `llama_cpp.Llama` behind an `asyncio.Queue`, one at a time.

That is what most programs with a local model do. It runs in a process of its own and needs no HTTP, which favours it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from functools import partial
from pathlib import Path

from benchmarks.chat_load_vs_llama_server import SIZES, STREAMS, TOKENS, TURNS, WORDS, ours
from benchmarks.llama_server import own_environment
from benchmarks.load import Load
from benchmarks.models import ROOT, starter
from benchmarks.pairs import in_turn, ratio, rounds
from benchmarks.result import Row, main

NAME = "chat_load_vs_one_llama"
GOAL = 4.0


async def theirs(model: Path, turns: int) -> Load:
    words = [str(n) for n in (STREAMS, turns, TOKENS, WORDS, SIZES.context, SIZES.threads)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.one_llama", str(model), *words,
        stdout=asyncio.subprocess.PIPE, env=own_environment(), cwd=ROOT,
    )  # fmt: skip
    out, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"one_llama ended with {process.returncode}")
    seen = json.loads(out)
    return Load(seconds=seen["seconds"], completion_tokens=seen["completion_tokens"], done=STREAMS * turns)


async def run(quick: bool) -> list[Row]:
    model, turns = starter(), 1 if quick else TURNS
    measures = {"Roost": partial(ours, model, turns), "one Llama": partial(theirs, model, turns)}
    found = await in_turn(NAME, rounds(quick), measures)
    rates = {who: [load.tokens_per_s for load in loads] for who, loads in found.values.items()}
    rows = [
        Row(benchmark=NAME, what=f"{who}: rate", value=statistics.median(values), unit="tokens/s")
        for who, values in rates.items()
    ]
    value = ratio(rates["Roost"], rates["one Llama"])
    rows.append(Row(benchmark=NAME, what="rate: Roost ÷ one Llama", value=value, unit="×", goal=GOAL))
    return [*rows, found.row(NAME)]


if __name__ == "__main__":
    main(run)
