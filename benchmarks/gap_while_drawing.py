"""Four chats are being answered while a picture renders: how long do their readers wait for the next word?

The p99 gap between two pieces of an answer, with pictures drawn one after the other all the time, against the same on a
Roost that draws nothing; the two in turn, on one Roost with both starter models.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from itertools import pairwise

import aiohttp
from msgspec import Struct

from benchmarks.load import Endpoint, ask, session
from benchmarks.models import starter
from benchmarks.pairs import rounds
from benchmarks.pictures import GUIDANCE, SIZE, STEPS, folder_of
from benchmarks.result import Row, main, note, percentile
from benchmarks.stack import Stack

NAME = "gap_while_drawing"
CHATS, TOKENS = 4, 96
GOAL = 2.0


class Seen(Struct, frozen=True):
    """Seconds: p99 gaps in the chats, and what a picture took meanwhile and alone."""

    idle: float
    drawing: float
    picture: float
    alone: float


async def run(quick: bool) -> list[Row]:
    models = (
        {"name": "chat", "type": "llama", "path": str(starter()), "slots": CHATS, "context": 768},
        {"name": "painter", "type": "diffusion", "path": str(folder_of("starter"))},
    )
    seen = []
    async with Stack(models=models) as stack:
        endpoint = Endpoint(f"{stack.http}/v1", "chat", stack.key)
        async with session(endpoint) as http:
            await picture(http, endpoint)
            await chats(http, endpoint)
            for i in range(rounds(quick)):
                seen.append(await measure(http, endpoint))
                note(f"{NAME}: round {i + 1}: p99 {1000 * seen[-1].idle:.0f} → {1000 * seen[-1].drawing:.0f} ms")
    values = [
        ("p99 gap, nothing drawn", [1000 * s.idle for s in seen], "ms", None),
        ("p99 gap while pictures are drawn", [1000 * s.drawing for s in seen], "ms", None),
        ("p99 gap while drawing ÷ idle", [s.drawing / s.idle for s in seen], "×", GOAL),
        ("a picture, beside four chats", [s.picture for s in seen], "s", None),
        ("a picture, alone", [s.alone for s in seen], "s", None),
    ]
    return [
        Row(benchmark=NAME, what=what, value=statistics.median(found), unit=unit, goal=goal, least=False)
        for what, found, unit, goal in values
    ]


async def measure(http: aiohttp.ClientSession, endpoint: Endpoint) -> Seen:
    alone = await picture(http, endpoint)
    idle = await chats(http, endpoint)
    times: list[float] = []
    over = asyncio.Event()

    async def paint() -> None:
        while not over.is_set():
            times.append(await picture(http, endpoint))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(paint())
        drawing = await chats(http, endpoint)
        over.set()
    return Seen(idle=idle, drawing=drawing, picture=statistics.median(times), alone=alone)


async def chats(http: aiohttp.ClientSession, endpoint: Endpoint) -> float:
    """The p99 gap between two pieces of four answers that are given at once."""
    answers = await asyncio.gather(
        *(
            ask(
                http,
                endpoint,
                [{"role": "user", "content": f"Write a long tale about lighthouse {i}."}],
                TOKENS,
                f"c{i}",
            )
            for i in range(CHATS)
        )
    )
    return percentile([b - a for answer in answers for a, b in pairwise(answer.stamps)], 0.99)


async def picture(http: aiohttp.ClientSession, endpoint: Endpoint) -> float:
    body = {
        "model": "painter", "prompt": "a red boat under a yellow sun", "size": SIZE, "response_format": "url",
        "steps": STEPS["starter"], "guidance": GUIDANCE,
    }  # fmt: skip
    begun = time.perf_counter()
    async with http.post(f"{endpoint.url}/images/generations", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{response.status} {(await response.text())[:200]}")
        await response.json()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(run)
