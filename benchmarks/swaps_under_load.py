"""Sixteen conversations never pause while the model is swapped a hundred times: what became of every single request?

Half of them speak HTTP and read streams, half NATS. Once with the starter model (two versions with other weights and
another system prompt), and once with echo, whose every word tells which version said it. Counted by the clients and
compared with the log TURNS: an answer is mixed when the pieces that came, the answer and its turn differ in text or
version, or its words in their marks.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import versions
from benchmarks.account import Account, Swapped, account
from benchmarks.models import starter
from benchmarks.publisher import Publisher, publisher
from benchmarks.result import Row, main, note
from benchmarks.talkers import Load, talking
from benchmarks.updating import CAPITAL, MODEL, Updated, swaps, updated
from schemas.release import Golden

NAME = "swaps_under_load"
TALKERS, SWAPS = 16, 100
TOKENS, WORDS = 24, 40
LLAMA: dict[str, Any] = {"slots": TALKERS, "context": 768}
ECHO: dict[str, Any] = {"type": "echo", "slots": TALKERS, "delay_token_ms": 10}
SHOWN = 5
"""Of each kind of problem."""


async def run(quick: bool) -> list[Row]:
    count = swaps(SWAPS, quick)
    rows = []
    with publisher(MODEL) as shop:
        first, second = starter(), versions.other(starter(), shop.folder / "other" / "model.gguf")
        await prepared(shop, count, [first, second], "llama", (CAPITAL,))
        async with updated(first, shop, **LLAMA) as roost:
            load = Load(name="llama", talkers=TALKERS, tokens=TOKENS, question=tale)
            rows += await measure(roost, load, count, "starter model")
    with publisher(MODEL) as shop:
        files = [versions.marked(f"~{mark(str(i))}", shop.folder / str(i) / "echo.json") for i in (0, 1)]
        await prepared(shop, count, files, "echo", ())
        async with updated(files[0], shop, **ECHO) as roost:
            load = Load(name="echo", talkers=TALKERS, tokens=2 * WORDS, question=words)
            rows += await measure(roost, load, count, "echo with marks", marks=True)
    return rows


def tale(number: int) -> str:
    return f"Write a long tale about lighthouse {number} and its keeper."


def words(number: int) -> str:
    return " ".join(f"word{number}.{i}" for i in range(WORDS))


def mark(release: str) -> str:
    """Releases have one of two contents in turn."""
    return "odd" if int(release) % 2 else "even"


async def prepared(shop: Publisher, count: int, files: list[Path], kind: str, goldens: tuple[Golden, ...]) -> None:
    note(f"{NAME}: preparing {count} releases for {kind}")
    for number in range(1, count + 1):
        await shop.prepare(str(number), files[number % 2], type=kind, goldens=goldens)


async def measure(roost: Updated, load: Load, count: int, place: str, *, marks: bool = False) -> list[Row]:
    """`count` swaps while the talkers talk, then the account."""
    before = {turn.id for turn in await roost.turns()}
    swapped, took = [], []
    async with talking(roost, load):
        for number in range(1, count + 1):
            began = time.time()
            change = await roost.take(str(number))
            swapped.append(Swapped(release=str(number), flipped_at=change.at, settled_at=time.time()))
            took.append(swapped[-1].settled_at - began)
            note(f"{NAME}: {place}: swap {number} of {count}: {took[-1]:.1f} s, {len(load.replies)} requests")
    turns = [turn for turn in await roost.turns() if turn.id not in before]
    found = account(load.replies, turns, swapped, mark if marks else None)
    for kind in ("failed", "lost", "doubled", "mixed", "stale"):
        for line in getattr(found, kind)[:SHOWN]:
            note(f"{NAME}: {place}: {kind}: {line}")
    return table(place, found, await roost.dead(), took)


def table(place: str, found: Account, dead: int, took: list[float]) -> list[Row]:
    def row(what: str, value: float, unit: str = "", goal: float | None = None) -> Row:
        return Row(benchmark=NAME, what=f"{place}: {what}", value=value, unit=unit, goal=goal, least=False)

    return [
        row("swaps", len(took)),
        row("one swap, from the check to settled, median", statistics.median(took), "s"),
        row("requests", found.requests),
        row("of them under way at a flip", found.across),
        row("of them answered in a second attempt", found.restarted),
        row("failed", len(found.failed), goal=0),
        row("lost", len(found.lost), goal=0),
        row("doubled", len(found.doubled), goal=0),
        row("mixed", len(found.mixed), goal=0),
        row("asked after a swap, answered by an older version", len(found.stale), goal=0),
        row("dead letters", dead, goal=0),
    ]


if __name__ == "__main__":
    main(run)
