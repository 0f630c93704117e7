"""The bus layer against bare nats-py on the same server and the same kind of stream, in turn, medians of the pairs.

Publishing: `Bus.publish` with many in flight against a loop of `publish_async`. Consuming: `bus.pull.Puller` with an
acknowledgement for each message, and the whole `bus.consume.Consumer` around it, against `fetch(100)` and `ack`.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import suppress
from typing import Any

import nats
from nats.js import JetStreamContext

from benchmarks.result import Row, main, note
from benchmarks.stack import Stack
from bus.client import Bus
from bus.consume import Consumer, Handler
from bus.endpoints import resolve
from bus.pull import Delivery, Puller

NAME = "bus_layer"
STREAM, SUBJECT = "BENCH", "bench.x"
PAYLOAD = b"x" * 256
IN_FLIGHT = 512
WINDOW = 512
SPEC: dict[str, Any] = {
    "ack_policy": "explicit",
    "ack_wait": 30_000_000_000,
    "max_ack_pending": 4096,
    "filter_subject": "bench.>",
}


async def fresh(js: JetStreamContext) -> None:
    """An empty work queue."""
    with suppress(nats.js.errors.NotFoundError):
        await js.delete_stream(STREAM)
    await js.add_stream(name=STREAM, subjects=["bench.>"], retention="workqueue", storage="file", allow_direct=True)


async def publish_bare(js: JetStreamContext, count: int) -> float:
    await fresh(js)
    began = time.perf_counter()
    for _ in range(count):
        await js.publish_async(SUBJECT, PAYLOAD)
    await js.publish_async_completed()
    return count / (time.perf_counter() - began)


async def publish_ours(bus: Bus, count: int) -> float:
    await fresh(bus.js)
    left = iter(range(count))

    async def lane() -> None:
        for _ in left:
            await bus.publish(SUBJECT, PAYLOAD)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.create_task(lane())
    return count / (time.perf_counter() - began)


async def fill(js: JetStreamContext, count: int) -> None:
    """`count` messages on many subjects, as conversations are."""
    await fresh(js)
    for i in range(count):
        await js.publish_async(f"bench.{i}", PAYLOAD)
    await js.publish_async_completed()


async def consume_bare(js: JetStreamContext, count: int) -> float:
    await fill(js, count)
    subscription = await js.pull_subscribe("bench.>", durable="bare", stream=STREAM)
    began = time.perf_counter()
    seen = 0
    while seen < count:
        for message in await subscription.fetch(100):
            await message.ack()
            seen += 1
    return count / (time.perf_counter() - began)


async def consume_pull(bus: Bus, count: int) -> float:
    await fill(bus.js, count)
    await bus.api(f"CONSUMER.DURABLE.CREATE.{STREAM}.ours", {
        "stream_name": STREAM, "config": {**SPEC, "durable_name": "ours"}
    })  # fmt: skip
    done = asyncio.Event()
    seen = 0

    async def receive(delivery: Delivery) -> None:
        nonlocal seen
        await delivery.ack()
        seen += 1
        if seen == count:
            done.set()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        pulling = tasks.create_task(Puller(bus, STREAM, "ours", receive, lambda: WINDOW).run())
        await done.wait()
        took = time.perf_counter() - began
        pulling.cancel()
    return count / took


class _Count(Handler):
    ordered = False

    def __init__(self, count: int) -> None:
        self.left = count
        self.done = asyncio.Event()

    async def handle(self, delivery: Delivery) -> None:
        self.left -= 1
        if self.left == 0:
            self.done.set()


async def consume_handler(bus: Bus, count: int) -> float:
    await fill(bus.js, count)
    handler = _Count(count)
    stopping = asyncio.Event()
    consumer = Consumer(bus, STREAM, "handler", {**SPEC, "durable_name": "handler"}, handler, slots=WINDOW)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run(stopping))
        await handler.done.wait()
        took = time.perf_counter() - began
        stopping.set()
    return count / took


async def run(quick: bool) -> list[Row]:
    count, pairs = (5_000, 3) if quick else (20_000, 5)
    rates: dict[str, list[float]] = {}
    async with Stack(sync="2s") as roost:
        config, endpoints = roost.config, resolve(roost.config, roost.data)
        bus = await Bus.connect(endpoints, config, name="bench")
        bare = await nats.connect(endpoints.nats[0], nkeys_seed=endpoints.nats_seed)
        js = bare.jetstream(publish_async_max_pending=4000)
        try:
            for i in range(pairs):
                note(f"{NAME}: pair {i + 1} of {pairs}")
                for name, rate in (
                    ("publish bare", await publish_bare(js, count)),
                    ("publish ours", await publish_ours(bus, count)),
                    ("consume bare", await consume_bare(js, count)),
                    ("consume ours", await consume_pull(bus, count)),
                    ("consume handler", await consume_handler(bus, count)),
                ):
                    rates.setdefault(name, []).append(rate)
        finally:
            await bare.close()
            await bus.close()
    return _rows({name: statistics.median(values) for name, values in rates.items()})


def _rows(median: dict[str, float]) -> list[Row]:
    rows = [Row(benchmark=NAME, what=name, value=rate, unit="messages/s") for name, rate in median.items()]
    for ours, bare, what, goal in (
        ("publish ours", "publish bare", "publish: Bus ÷ publish_async", 0.9),
        ("consume ours", "consume bare", "consume + ack: Puller ÷ fetch(100)", 2.0),
        ("consume handler", "consume bare", "consume + ack: Consumer with a handler ÷ fetch(100)", None),
    ):
        rows.append(Row(benchmark=NAME, what=what, value=median[ours] / median[bare], unit="×", goal=goal))
    return rows


if __name__ == "__main__":
    main(run)
