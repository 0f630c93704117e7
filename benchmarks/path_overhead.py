"""What the whole path costs: ask on NATS → INBOX → worker (echo) → OUTBOX → reply, and turns a second.

With every message on the disk before it is acknowledged (`sync: always`), and with the interval setting.
"""

from __future__ import annotations

import asyncio
import json
import time

import nats
from nats.aio.client import Client

from benchmarks.result import Row, main, note, percentile
from benchmarks.stack import Stack

NAME = "path_overhead"
TIMEOUT_S = 60.0
GOAL_P50_MS = {"always": 6.0, "2s": 3.0}
GOAL_TURNS = 500.0


async def asks(client: Client, conversation: str, count: int) -> list[float]:
    """Seconds that each of `count` asks took, one after the other; in one conversation, if it is named."""
    took = []
    for i in range(count):
        began = time.perf_counter()
        body = json.dumps({"text": f"hello small world {i}", "conversation": conversation}).encode()
        answer = json.loads((await client.request("roost.ask", body, timeout=TIMEOUT_S)).data)
        if "error" in answer or not answer["text"].startswith("hello"):
            raise RuntimeError(f"unexpected answer: {answer}")
        took.append(time.perf_counter() - began)
    return took


async def measure(client: Client, flights: int, total: int, run: str) -> tuple[list[float], float]:
    """Latencies in seconds and turns a second with `flights` askers at once; each a conversation, if `run` names it."""
    began = time.perf_counter()
    each = max(1, total // flights)
    parts = await asyncio.gather(*(asks(client, run and f"{run}-{flights}-{i}", each) for i in range(flights)))
    took = [seconds for part in parts for seconds in part]
    return took, len(took) / (time.perf_counter() - began)


def result(sync: str, flights: int, kind: str, took: list[float], rate: float) -> list[Row]:
    """Rows of one measurement. The goals are for single questions; turns of a conversation stand beside them."""
    place = f"sync {sync}, {flights} in flight{', in conversations' if kind else ''}"
    p50, p99 = percentile(took, 0.5) * 1000, percentile(took, 0.99) * 1000
    slowest = GOAL_P50_MS[sync] if flights == 1 and not kind else None
    least = GOAL_TURNS if flights > 1 and not kind else None
    return [
        Row(benchmark=NAME, what=f"{place}: p50", value=p50, unit="ms", goal=slowest, least=False),
        Row(benchmark=NAME, what=f"{place}: p99", value=p99, unit="ms"),
        Row(benchmark=NAME, what=f"{place}: rate", value=rate, unit="turns/s", goal=least),
    ]


async def run(quick: bool) -> list[Row]:
    rows = []
    for sync in ("always", "2s"):
        note(f"{NAME}: sync {sync}")
        async with Stack(sync=sync) as roost:
            client = await nats.connect(roost.nats, nkeys_seed=roost.client_nkey)
            try:
                await measure(client, 8, 80, "warm")
                for flights, total in ((1, 200 if quick else 1000), (100, 1000 if quick else 5000)):
                    for kind in ("", "talk"):
                        rows += result(sync, flights, kind, *await measure(client, flights, total, kind))
            finally:
                await client.close()
    return rows


if __name__ == "__main__":
    main(run)
