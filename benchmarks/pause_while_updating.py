"""Four chats are being answered while a new version is fetched, tried, loaded and taken into use: how long do their
readers see nothing new, at worst?

The starter model; all of the file is new, and it is fetched as fast as the disk gives it. Gaps count within an answer,
from one piece to the next, from the check to the settled swap; the steady ones are those before it. Steady time as
long as the update shows what the worst gap is without one.
"""

from __future__ import annotations

import asyncio
import statistics
import time

import aiohttp
from msgspec import Struct

from benchmarks import versions
from benchmarks.beside import beside
from benchmarks.load import Endpoint, ask, session
from benchmarks.models import starter
from benchmarks.pairs import rounds
from benchmarks.publisher import Publisher, publisher
from benchmarks.result import Row, main, note, percentile
from benchmarks.updating import CAPITAL, MODEL, updated

NAME = "pause_while_updating"
CHATS, TOKENS = 4, 160
STEADY_S = 20.0
GOAL = 2.0
NEW = "1"
Gap = tuple[float, float]
"""When it ended (`time.perf_counter`), and how long it was."""


class Seen(Struct, frozen=True):
    """Seconds. `worst` gap during the update; the steady gaps before it."""

    steady: list[float]
    worst: float
    update_s: float

    @property
    def p99(self) -> float:
        return percentile(self.steady, 0.99)


async def run(quick: bool) -> list[Row]:
    seen = []
    with publisher(MODEL) as shop:
        new = versions.all_new(starter(), shop.folder / "new" / "model.gguf")
        await shop.prepare(NEW, new, goldens=(CAPITAL,))
        for i in range(rounds(quick)):
            shop.hide()
            seen.append(await measure(shop, 5.0 if quick else STEADY_S))
            last = seen[-1]
            note(f"{NAME}: round {i + 1}: p99 {1000 * last.p99:.0f} ms, worst in the update {1000 * last.worst:.0f} ms")
    return table(seen)


async def measure(shop: Publisher, steady_s: float) -> Seen:
    async with updated(starter(), shop, slots=CHATS, context=768) as roost, session(roost.endpoint) as http:
        gaps: list[Gap] = []
        async with beside(*(chat(http, roost.endpoint, i, gaps) for i in range(CHATS))):
            await asyncio.sleep(steady_s)
            began = time.perf_counter()
            await roost.take(NEW)
            ended = time.perf_counter()
    steady = [gap for at, gap in gaps if at < began]
    return Seen(steady=steady, worst=max(gap for at, gap in gaps if began <= at <= ended), update_s=ended - began)


async def chat(http: aiohttp.ClientSession, endpoint: Endpoint, number: int, gaps: list[Gap]) -> None:
    """One answer after the other, until cancelled."""
    turn = 0
    while True:
        turn += 1
        stamps: list[float] = []
        question = f"Write a long tale about lighthouse {number * 1000 + turn} and its keeper."

        def seen(stamps: list[float] = stamps) -> None:
            stamps.append(time.perf_counter())
            if len(stamps) > 1:
                gaps.append((stamps[-1], stamps[-1] - stamps[-2]))

        await ask(http, endpoint, [{"role": "user", "content": question}], TOKENS, f"chat-{number}", seen)


def table(seen: list[Seen]) -> list[Row]:
    def row(what: str, values: list[float], unit: str = "ms", goal: float | None = None) -> Row:
        return Row(benchmark=NAME, what=what, value=statistics.median(values), unit=unit, goal=goal, least=False)

    return [
        row("steady gap p50", [1000 * percentile(s.steady, 0.5) for s in seen]),
        row("steady gap p99", [1000 * s.p99 for s in seen]),
        row("longest steady gap ÷ steady p99", [max(s.steady) / s.p99 for s in seen], "×"),
        row("longest gap during the update", [1000 * s.worst for s in seen]),
        row("the update, from the check to settled", [s.update_s for s in seen], "s"),
        row("longest gap during the update ÷ steady p99", [s.worst / s.p99 for s in seen], "×", GOAL),
    ]


if __name__ == "__main__":
    main(run)
