"""Eight conversations of three turns on the starter model through HTTP: Roost against llama-server.

llama-server is built from the source that the llama-cpp-python distribution vendors; same file, same threads, same
context, started in turn in the same run, so neither takes the other's cores.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path

from benchmarks.load import Load, conversations
from benchmarks.result import Row, Unavailable, main, note, percentile
from benchmarks.stack import Stack

NAME = "chat_load_vs_llama_server"
ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "text-generation" / "current"
STREAMS, TURNS, TOKENS, WORDS = 8, 3, 48, 300
CONTEXT = 2048
THREADS = os.cpu_count() or 1
GOAL = 0.9


def model_file() -> Path:
    """The starter model's file; `make up` fetches it."""
    path = MODEL.resolve()
    if path.is_dir():
        path = next(iter(sorted(path.glob("*.gguf"))), path)
    if not path.is_file():
        raise Unavailable(f"no model at {MODEL}; `make up` fetches the starter model")
    return path


async def ours(model: Path, load: tuple[int, int, int, int]) -> Load:
    entry = {
        "name": "chat", "type": "llama", "path": str(model), "slots": STREAMS, "context": CONTEXT, "threads": THREADS
    }  # fmt: skip
    async with Stack(models=(entry,)) as roost:
        await conversations(f"{roost.http}/v1", "chat", 2, 1, 8, 0, roost.key)
        return await conversations(f"{roost.http}/v1", "chat", *load, roost.key)


async def theirs(model: Path, load: tuple[int, int, int, int]) -> Load:
    from benchmarks.llama_server import server

    options = ["-c", str(CONTEXT * STREAMS), "-np", str(STREAMS), "-t", str(THREADS), "-tb", str(THREADS), "--no-webui"]
    with server(model, *options) as url:
        await conversations(url, "chat", 2, 1, 8)
        return await conversations(url, "chat", *load)


async def run(quick: bool) -> list[Row]:
    model = model_file()
    load = (STREAMS, 1 if quick else TURNS, TOKENS, WORDS)
    loads: dict[str, list[Load]] = {"Roost": [], "llama-server": []}
    for i in range(1 if quick else 3):
        note(f"{NAME}: round {i + 1}")
        loads["Roost"].append(await ours(model, load))
        loads["llama-server"].append(await theirs(model, load))
    rows = []
    for name, found in loads.items():
        for one in found:
            if one.errors:
                raise RuntimeError(f"{name}: {len(one.errors)} conversations failed: {one.errors[0]}")
        rate = statistics.median(one.tokens_per_s for one in found)
        first = statistics.median(percentile(one.first, 0.5) * 1000 for one in found)
        rows.append(Row(benchmark=NAME, what=f"{name}: rate", value=rate, unit="tokens/s"))
        rows.append(Row(benchmark=NAME, what=f"{name}: first token p50", value=first, unit="ms"))
    ratio = rows[0].value / rows[2].value
    rows.append(Row(benchmark=NAME, what="rate: Roost ÷ llama-server", value=ratio, unit="×", goal=GOAL))
    return rows


if __name__ == "__main__":
    main(run)
