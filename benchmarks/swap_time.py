"""How long after the last byte of a new version has come does it answer every new request? The starter model, and
models of 1B and 7B shape (random weights).

The whole file is fetched from a web server of this machine, which notes when its last byte goes out. From the flip of
the link on, questions are asked shortly after one another; the time ends when the first one begins after which none
gets the old version. Once on a Roost that is idle until then, and once on one that a client keeps busy with a question
after the other. Beside it stand the stages that the updater and the worker tell (`roost update history`).

The first token after the flip of the link: questions are asked from the moment at which the link is seen to have
changed, and the first token of the new version counts from the change on. The same with the link at rest is a normal
first token. No question begins like an earlier one, so that nothing of it is computed already.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import aiohttp
import psutil
from msgspec import Struct

from benchmarks import versions
from benchmarks.beside import beside
from benchmarks.load import Endpoint, ask, session
from benchmarks.models import ROOT, SPARE_BYTES, starter, synthetic
from benchmarks.pairs import rounds
from benchmarks.publisher import Publisher, publisher, served
from benchmarks.result import Row, Unavailable, main, note
from benchmarks.updating import MODEL, Updated, of_release, updated
from schemas.release import Expected, Golden

NAME = "swap_time"
NEW = "1"
GOAL_S = {"starter": 1.5, "1b": 3.0, "7b": 5.0}
GOAL_FIRST = 2.0
MEMORY_BYTES = {"starter": 1_000_000_000, "1b": 3_000_000_000, "7b": 12_000_000_000}
"""Free memory that is wanted: two versions, and the file in the page cache."""
COPIES = 2
"""Of the model's file on the disk at most at once, beside it: as chunks, and as the new version."""
GOLDEN = Golden(prompt="hello", expect=Expected(chars_min=0), max_tokens=4)
"""Random weights cannot be right; the time of asking counts."""
VOLLEY, SPACING_S = 3, 0.015
NORMAL = 7
CALM_S = 2.0
LOOK_S = 0.001


class Asked(Struct, frozen=True):
    """One question, and which release answered it; Unix seconds."""

    began: float
    release: str


class Found(Struct, frozen=True):
    """One update. Seconds; `first` and `normal` are first tokens."""

    total: float
    stages: dict[str, float]
    fetch_s: float
    first: float
    normal: float


async def run(quick: bool) -> list[Row]:
    shapes = os.environ.get("ROOST_BENCH_SHAPES", "starter,1b" if quick else ",".join(GOAL_S)).split(",")
    rows = []
    for shape in shapes:
        try:
            rows += await of_shape(shape, rounds(quick))
        except Unavailable as error:
            note(f"{NAME}: without {shape}: {error}")
    return rows


async def of_shape(shape: str, times: int) -> list[Row]:
    file = starter() if shape == "starter" else synthetic(shape, "q4_k" if shape == "1b" else "q4_0")
    free, need = psutil.virtual_memory().available, MEMORY_BYTES.get(shape, 0)
    if free < need:
        raise Unavailable(f"{free / 1e9:.1f} GB of memory are free; {need / 1e9:.0f} are wanted")
    disk, need = shutil.disk_usage(ROOT).free, COPIES * file.stat().st_size + SPARE_BYTES
    if disk < need:
        raise Unavailable(f"{disk / 1e9:.1f} GB of disk are free; {need / 1e9:.1f} are wanted")
    with publisher(MODEL) as shop:
        note(f"{NAME}: {shape}: preparing a release of {file.stat().st_size / 1e9:.1f} GB")
        new = versions.all_new(file, shop.folder / "new" / "model.gguf")
        await shop.prepare(NEW, new, goldens=(GOLDEN,))
        new.unlink()
        found: dict[str, list[Found]] = {"idle": [], "busy": []}
        for i in range(times):
            for how, busy in (("idle", False), ("busy", True)):
                shop.hide()
                seen = await measure(file, shop, busy=busy)
                found[how].append(seen)
                note(f"{NAME}: {shape}, {how}: round {i + 1} of {times}: {seen.total:.2f} s; {seen.stages}")
    return [*table(f"{shape}, idle", found["idle"], GOAL_S.get(shape)), *table(f"{shape}, busy", found["busy"], None)]


async def measure(file: Path, shop: Publisher, *, busy: bool) -> Found:
    """One update of a Roost of its own; `busy`: a client asks one question after the other all the time."""
    asked: list[Asked] = []
    async with (
        served(shop.repository) as (url, sent),
        updated(file, shop, source=url, slots=VOLLEY + 1, context=512) as roost,
        session(roost.endpoint) as http,
        asking(http, roost.endpoint, asked) if busy else nullcontext(),
    ):
        await asyncio.sleep(CALM_S)
        normal = statistics.median([await volley(http, roost, time.time(), "", []) for _ in range(NORMAL)])
        begun = time.time()
        async with asyncio.TaskGroup() as group:
            flip = group.create_task(after_flip(http, roost, asked))
            change = await roost.take(NEW)
        await asyncio.sleep(CALM_S)
        await volley(http, roost, time.time(), "", asked)
    return Found(
        total=all_on(NEW, asked) - sent.last_at,
        stages=change.seconds,
        fetch_s=sent.last_at - begun,
        first=flip.result(),
        normal=normal,
    )


@asynccontextmanager
async def asking(http: aiohttp.ClientSession, endpoint: Endpoint, asked: list[Asked]) -> AsyncIterator[None]:
    """One client that asks for a single token, again and again."""

    async def on() -> None:
        while True:
            began = time.time()
            answer = await ask(http, endpoint, [{"role": "user", "content": "Go on"}], 1, "keeps-asking")
            asked.append(Asked(began, of_release(answer.version)))

    async with beside(on()):
        yield


def all_on(release: str, asked: list[Asked]) -> float:
    """When the first question was asked after which nobody got another release."""
    others = [one.began for one in asked if one.release != release]
    after = [one.began for one in asked if one.began > max(others, default=0.0)]
    if not after:
        raise RuntimeError(f"the last question was not answered by release {release}")
    return min(after)


async def after_flip(http: aiohttp.ClientSession, roost: Updated, asked: list[Asked]) -> float:
    """Seconds from the change of the link to the first token of the release that it names then."""
    before = os.readlink(roost.link)
    while os.readlink(roost.link) == before:
        await asyncio.sleep(LOOK_S)
    return await volley(http, roost, os.lstat(roost.link).st_ctime, NEW, asked)


_numbers = itertools.count(1)


async def volley(http: aiohttp.ClientSession, roost: Updated, since: float, release: str, asked: list[Asked]) -> float:
    """Seconds from `since` to the first token of `release` (empty: of any). Asked a few at a time, shortly after one
    another, until one got it."""
    offset = time.time() - time.perf_counter()

    async def question() -> tuple[float, str]:
        station = {"role": "system", "content": f"{next(_numbers)} is the number of this station."}
        answer = await ask(http, roost.endpoint, [station, {"role": "user", "content": "Hello?"}], 1, "volley")
        asked.append(Asked(answer.began + offset, of_release(answer.version)))
        first = answer.stamps[0] if answer.stamps else time.perf_counter()  # random weights may say half a character
        return first + offset, asked[-1].release

    stamps: list[float] = []
    flying: set[asyncio.Task[tuple[float, str]]] = set()
    while not stamps or flying:
        if not stamps and len(flying) < VOLLEY:
            flying.add(asyncio.create_task(question()))
        done, flying = await asyncio.wait(flying, timeout=SPACING_S, return_when=asyncio.FIRST_COMPLETED)
        stamps += [task.result()[0] for task in done if release in ("", task.result()[1])]
    return min(stamps) - since


def table(place: str, found: list[Found], goal_s: float | None) -> list[Row]:
    def row(what: str, values: list[float], unit: str = "s", goal: float | None = None) -> Row:
        value = statistics.median(values)
        return Row(benchmark=NAME, what=f"{place}: {what}", value=value, unit=unit, goal=goal, least=False)

    stages = {stage: [f.stages[stage] for f in found if stage in f.stages] for f in found for stage in f.stages}
    return [
        row("last byte to all new requests on the new version", [f.total for f in found], goal=goal_s),
        row("before it: check and fetch", [f.fetch_s for f in found]),
        *(row(f"stage {stage}", values) for stage, values in stages.items()),
        row("normal first token", [1000 * f.normal for f in found], "ms"),
        row("link flip to first token", [1000 * f.first for f in found], "ms"),
        row("link flip to first token ÷ normal", [f.first / f.normal for f in found], "×", GOAL_FIRST),
    ]


if __name__ == "__main__":
    main(run)
