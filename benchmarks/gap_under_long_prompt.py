"""Four chats are being answered when a prompt of 2,000 tokens arrives: how long do their readers see nothing new?

llama-server once as its authors have it, and once with batches of 64 tokens, which shortens its gaps at the price of
its rate. The whole time is that of everything: the four answers, the long prompt and its answer.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise

from msgspec import Struct

from benchmarks.load import Endpoint, ask, session, shared_prompt
from benchmarks.models import starter
from benchmarks.pairs import in_turn, ratio, rounds
from benchmarks.result import Row, main
from benchmarks.serve import Sizes, llama_server, roost

NAME = "gap_under_long_prompt"
CHATS, TOKENS, SEEN = 4, 128, 8
LONG_WORDS, LONG_MIN, LONG_TOKENS = 1_480, 2_000, 16
SIZES = Sizes(slots=CHATS + 1, context=2560)
SMALL_BATCHES = ("-b", "64", "-ub", "64")
GOAL_GAP, GOAL_TIME = 0.3, 1.1


class Seen(Struct, frozen=True):
    """Seconds: the worst gap in a running chat once the long prompt is there, that prompt's first token, and all."""

    gap: float
    first: float
    whole: float


async def measure(endpoint: Endpoint) -> Seen:
    running = asyncio.Event()
    counts = [0] * CHATS

    def count(i: int) -> None:
        counts[i] += 1
        if min(counts) >= SEEN:
            running.set()

    async def chat(i: int) -> list[float]:
        question = [{"role": "user", "content": f"Write a long tale about lighthouse {i} and its keeper."}]
        return (await ask(http, endpoint, question, TOKENS, f"chat-{i}", lambda: count(i))).stamps

    async with session(endpoint) as http, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        chats = [group.create_task(chat(i)) for i in range(CHATS)]
        await running.wait()
        text = shared_prompt(LONG_WORDS) + "Repeat the first rule."
        long = await ask(http, endpoint, [{"role": "user", "content": text}], LONG_TOKENS, "long")
    if long.prompt_tokens < LONG_MIN:
        raise RuntimeError(f"the long prompt has only {long.prompt_tokens} tokens")
    stamps = [task.result() for task in chats]
    gaps = [b - a for line in stamps for a, b in pairwise(line) if b > long.began]
    if not gaps:
        raise RuntimeError("the chats were answered before the long prompt came")
    end = max(long.stamps[-1], *(line[-1] for line in stamps))
    return Seen(gap=max(gaps), first=long.first, whole=end - began)


async def ours() -> Seen:
    async with roost(starter(), SIZES) as endpoint:
        return await measure(endpoint)


async def theirs(*options: str) -> Seen:
    async with llama_server(starter(), SIZES, *options) as endpoint:
        return await measure(endpoint)


async def run(quick: bool) -> list[Row]:
    measures: dict[str, Callable[[], Awaitable[Seen]]] = {
        "Roost": ours, "llama-server": theirs, "llama-server -b 64 -ub 64": partial(theirs, *SMALL_BATCHES)
    }  # fmt: skip
    found = await in_turn(NAME, rounds(quick), measures)
    rows = []
    for who, seen in found.values.items():
        for what, values in (
            ("worst gap", [s.gap * 1000 for s in seen]),
            ("first token of the long prompt", [s.first * 1000 for s in seen]),
            ("whole time", [s.whole * 1000 for s in seen]),
        ):
            rows.append(Row(benchmark=NAME, what=f"{who}: {what}", value=statistics.median(values), unit="ms"))
    mine = found.values["Roost"]
    for who, seen in found.values.items():
        if who == "Roost":
            continue
        gap = ratio([s.gap for s in mine], [s.gap for s in seen])
        whole = ratio([s.whole for s in mine], [s.whole for s in seen])
        goals = (GOAL_GAP, GOAL_TIME) if who == "llama-server" else (None, None)
        for what, value, goal in (("worst gap", gap, goals[0]), ("whole time", whole, goals[1])):
            what = f"{what}: Roost ÷ {who}"
            rows.append(Row(benchmark=NAME, what=what, value=value, unit="×", goal=goal, least=False))
    return [*rows, found.row(NAME)]


if __name__ == "__main__":
    main(run)
