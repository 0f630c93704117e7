"""New versions of the starter model while sixteen clients read streams without a pause: Roost, and what users do today.

- Roost: a signed release, fetched, tried and taken into use.
- llama-server, restarted: a small proxy in front; the old one is stopped, then the new one started with the new file.
- llama-server, beside: the new one is started on another port, the proxy passes requests to it once its `/health` is
  good, and the old one is stopped.
- llama-server, beside and drained: the same, and the old one is stopped when its last answer has been given.

A client whose request fails asks again after half a second, which counts as another request. A gap is the time in
which one reader saw nothing new: between two pieces, between two answers, and while its requests fail.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import aiohttp
from msgspec import Struct, field

from benchmarks import versions
from benchmarks.beside import beside
from benchmarks.load import Endpoint, ask, conversations, session
from benchmarks.models import THREADS, starter
from benchmarks.pairs import in_turn, rounds
from benchmarks.proxy import Proxy, proxy
from benchmarks.publisher import Publisher, publisher
from benchmarks.result import Row, main
from benchmarks.updating import CAPITAL, MODEL, swaps, updated

NAME = "swap_vs_llama_server"
READERS, TOKENS, CONTEXT = 16, 48, 768
SWAPS = 3
STEADY_S = 10.0
AGAIN_S = 0.5
OPTIONS = ("-c", str(READERS * CONTEXT), "-np", str(READERS), "-t", str(THREADS), "-tb", str(THREADS), "--no-webui")
OURS = "Roost"


class Readers(Struct):
    """What all readers have seen. `stamps`: for each reader, when each piece came (`time.perf_counter`)."""

    done: int = 0
    errors: list[str] = field(default_factory=list)
    stamps: list[list[float]] = field(default_factory=list)

    def longest(self, begin: float, end: float) -> float:
        """The longest gap of any reader that ended in this time, or goes on at its end."""
        gaps = []
        for stamps in self.stamps:
            before = max((stamp for stamp in stamps if stamp <= begin), default=begin)
            within = [stamp for stamp in stamps if begin < stamp <= end]
            gaps += [b - a for a, b in pairwise([before, *within, end])]
        return max(gaps)


class Outcome(Struct, frozen=True, kw_only=True):
    """One measurement. Seconds, but for counts."""

    requests: int
    failed: int
    error: str
    steady_gap: float
    swap_gap: float
    swap_s: float


Swap = Callable[[int], Awaitable[object]]


async def measure(endpoint: Endpoint, count: int, steady_s: float, swap: Swap) -> Outcome:
    """Steady load, then `count` swaps under it with some time after each."""
    (await conversations(endpoint, READERS, 1, 8)).whole("the first requests")
    took = []
    async with reading(endpoint) as seen:
        await asyncio.sleep(steady_s)
        begin = time.perf_counter()
        for number in range(1, count + 1):
            began = time.perf_counter()
            await swap(number)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(steady_s / 2)
        end = time.perf_counter()
    return Outcome(
        requests=seen.done + len(seen.errors),
        failed=len(seen.errors),
        error=seen.errors[0] if seen.errors else "",
        steady_gap=seen.longest(begin - steady_s, begin),
        swap_gap=seen.longest(begin, end),
        swap_s=statistics.median(took),
    )


@asynccontextmanager
async def reading(endpoint: Endpoint) -> AsyncIterator[Readers]:
    """All readers read meanwhile."""
    seen = Readers()
    async with session(endpoint) as http, beside(*(_reader(http, endpoint, i, seen) for i in range(READERS))):
        yield seen


async def _reader(http: aiohttp.ClientSession, endpoint: Endpoint, number: int, seen: Readers) -> None:
    stamps: list[float] = []
    seen.stamps.append(stamps)
    turn = 0
    while True:
        turn += 1
        question = f"Write a long tale about lighthouse {number * 1000 + turn} and its keeper."
        try:
            answer = await ask(
                http, endpoint, [{"role": "user", "content": question}], TOKENS, f"reader-{number}",
                lambda: stamps.append(time.perf_counter()),
            )  # fmt: skip
        except (aiohttp.ClientError, RuntimeError, TimeoutError) as error:
            seen.errors.append(repr(error)[:300])
            await asyncio.sleep(AGAIN_S)
            continue
        if answer.tokens < TOKENS:
            seen.errors.append(f"the answer ended after {answer.tokens} of {TOKENS} tokens")
        else:
            seen.done += 1


async def ours(files: list[Path], shop: Publisher, count: int, steady_s: float) -> Outcome:
    shop.hide()
    async with updated(files[0], shop, slots=READERS, context=CONTEXT) as roost:
        return await measure(roost.endpoint, count, steady_s, lambda number: roost.take(str(number)))


async def theirs(
    files: list[Path], count: int, steady_s: float, how: Callable[[Proxy, Path], Awaitable[None]]
) -> Outcome:
    async with proxy(files[0], *OPTIONS) as (endpoint, passing):
        return await measure(endpoint, count, steady_s, lambda number: how(passing, files[number % 2]))


async def run(quick: bool) -> list[Row]:
    count, steady_s = swaps(SWAPS, quick), 4.0 if quick else STEADY_S
    with publisher(MODEL) as shop:
        files = [starter(), versions.other(starter(), shop.folder / "other" / "model.gguf")]
        for number in range(1, count + 1):
            await shop.prepare(str(number), files[number % 2], goldens=(CAPITAL,))
        measures: dict[str, Callable[[], Awaitable[Outcome]]] = {
            OURS: partial(ours, files, shop, count, steady_s),
            "llama-server, restarted": partial(theirs, files, count, steady_s, Proxy.restart),
            "llama-server, beside": partial(theirs, files, count, steady_s, Proxy.beside),
            "llama-server, beside and drained": partial(theirs, files, count, steady_s, drained),
        }
        found = await in_turn(NAME, rounds(quick), measures)
    rows = []
    for who, outcomes in found.values.items():
        rows += table(who, count, outcomes)
    return [*rows, found.row(NAME)]


async def drained(passing: Proxy, model: Path) -> None:
    await passing.beside(model, drained=True)


def table(who: str, count: int, outcomes: list[Outcome]) -> list[Row]:
    def row(what: str, values: list[float], unit: str = "", goal: float | None = None) -> Row:
        value = statistics.median(values)
        return Row(benchmark=NAME, what=f"{who}: {what}", value=value, unit=unit, goal=goal, least=False)

    return [
        row("requests", [o.requests for o in outcomes]),
        row(f"failed, {count} swaps", [o.failed for o in outcomes], goal=0 if who == OURS else None),
        row("longest gap without a swap", [o.steady_gap for o in outcomes], "s"),
        row("longest gap with swaps", [o.swap_gap for o in outcomes], "s"),
        row("one swap, as its user waits for it", [o.swap_s for o in outcomes], "s"),
    ]


if __name__ == "__main__":
    main(run)
