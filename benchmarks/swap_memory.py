"""What the worker holds in memory after fifty swaps of the starter model ÷ after the second.

Between two swaps four conversations are answered, so that every version has computed something. Resident memory, with
the pages of the model's file that are mapped; the worker stays the same process.
"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks import versions
from benchmarks.load import conversations
from benchmarks.models import starter
from benchmarks.publisher import publisher
from benchmarks.result import Row, main, note
from benchmarks.updating import CAPITAL, MODEL, Updated, swaps, updated

NAME = "swap_memory"
SWAPS, BASE = 50, 2
CHATS, TURNS, TOKENS = 4, 2, 24
SIZES: dict[str, Any] = {"slots": CHATS, "context": 1024}
GOAL = 2.0
REST_S = 1.0
"""The worker collects what a closed version leaves half a second later."""
MB = 1_000_000


async def run(quick: bool) -> list[Row]:
    count = max(BASE + 1, swaps(SWAPS, quick))
    with publisher(MODEL) as shop:
        files = [starter(), versions.other(starter(), shop.folder / "other" / "model.gguf")]
        note(f"{NAME}: preparing {count} releases")
        for number in range(1, count + 1):
            await shop.prepare(str(number), files[number % 2], goldens=(CAPITAL,))
        async with updated(files[0], shop, **SIZES) as roost:
            held = await measure(roost, count)
    base, last = held[BASE - 1], held[-1]
    return [
        Row(benchmark=NAME, what=f"resident after swap {BASE}", value=base / MB, unit="MB"),
        Row(benchmark=NAME, what=f"resident after swap {count}", value=last / MB, unit="MB"),
        Row(benchmark=NAME, what="most after any swap", value=max(held) / MB, unit="MB"),
        Row(benchmark=NAME, what="drift", value=100 * (last / base - 1), unit="%", goal=GOAL, least=False),
    ]


async def measure(roost: Updated, count: int) -> list[int]:
    """Bytes after each swap."""
    worker = await roost.worker()
    held = []
    for number in range(1, count + 1):
        await roost.take(str(number))
        (await conversations(roost.endpoint, CHATS, TURNS, TOKENS)).whole(f"conversations after swap {number}")
        await asyncio.sleep(REST_S)
        held.append(worker.memory_info().rss)  # raises where the worker is another by now
        note(f"{NAME}: swap {number} of {count}: {held[-1] / MB:.1f} MB")
    return held


if __name__ == "__main__":
    main(run)
