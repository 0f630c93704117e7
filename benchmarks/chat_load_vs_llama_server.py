"""Eight conversations of three turns on the starter model through HTTP: Roost against llama-server and others.

All on the same file with the same threads and windows, each started in turn in the same run, so that none takes the
other's cores. The peers:

- llama-server: `-np 8`, all else as its authors have it. Built from the source that llama-cpp-python carries.
- llama-server, short waits: its threads let go of a core soon (`GOMP_SPINCOUNT=1000`, `--poll 0`), which is the better
  choice where other programs work beside it, and a worse one where none does.
- Roost without drafts: what is left of the ratio when the answers do not repeat themselves.
- llama_cpp.server, batched server: llama-cpp-python's own (`llama_cpp_servers.py`), where they run.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import llama_cpp_servers
from benchmarks.load import Load, conversations
from benchmarks.models import starter
from benchmarks.pairs import Measured, in_turn, ratio, rounds
from benchmarks.result import Row, Unavailable, main, note, percentile
from benchmarks.serve import Sizes, llama_server, roost

NAME = "chat_load_vs_llama_server"
STREAMS, TURNS, TOKENS, WORDS = 8, 3, 48, 300
SIZES = Sizes(slots=STREAMS, context=2048)
SHORT_WAITS = {"GOMP_SPINCOUNT": "1000"}
GOAL = 1.2
OURS, PEER = "Roost", "llama-server"


async def ours(model: Path, turns: int, **settings: Any) -> Load:
    async with roost(model, SIZES, **settings) as endpoint:
        return (await conversations(endpoint, STREAMS, turns, TOKENS, WORDS)).whole(OURS)


async def theirs(model: Path, turns: int, *options: str, environment: dict[str, str] | None = None) -> Load:
    async with llama_server(model, SIZES, *options, environment=environment) as endpoint:
        return (await conversations(endpoint, STREAMS, turns, TOKENS, WORDS)).whole(PEER)


async def python_peer(which: str, model: Path, turns: int) -> Load:
    async with llama_cpp_servers.server(which, model, SIZES) as endpoint:
        return (await conversations(endpoint, STREAMS, turns, TOKENS, WORDS)).whole(which)


async def run(quick: bool) -> list[Row]:
    model, turns = starter(), 1 if quick else TURNS
    measures: dict[str, Callable[[], Awaitable[Load]]] = {
        OURS: partial(ours, model, turns),
        PEER: partial(theirs, model, turns),
        "llama-server, short waits": partial(theirs, model, turns, "--poll", "0", environment=SHORT_WAITS),
        "Roost without drafts": partial(ours, model, turns, draft=False),
    }
    rows = table(await in_turn(NAME, rounds(quick), measures))
    for which in llama_cpp_servers.WHICH:
        try:
            pair = {OURS: measures[OURS], which: partial(python_peer, which, model, turns)}
            rows += table(await in_turn(NAME, 1, pair))[2:]
        except Unavailable as error:
            note(f"{NAME}: without {which}: {error}")
    return rows


def table(found: Measured[Load]) -> list[Row]:
    """Rates and first tokens of all, then our rate ÷ each peer's. The goal is for llama-server as it is."""
    rows = []
    rates = {what: [load.tokens_per_s for load in loads] for what, loads in found.values.items()}
    for what, loads in found.values.items():
        first = statistics.median(percentile(load.first, 0.5) * 1000 for load in loads)
        rows.append(Row(benchmark=NAME, what=f"{what}: rate", value=statistics.median(rates[what]), unit="tokens/s"))
        rows.append(Row(benchmark=NAME, what=f"{what}: first token p50", value=first, unit="ms"))
    for what, values in rates.items():
        if what != OURS:
            goal = GOAL if what == PEER else None
            value = ratio(rates[OURS], values)
            rows.append(Row(benchmark=NAME, what=f"rate: {OURS} ÷ {what}", value=value, unit="×", goal=goal))
    return [*rows, found.row(NAME)]


if __name__ == "__main__":
    main(run)
