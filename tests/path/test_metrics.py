"""What Prometheus reads from a running Roost."""

from __future__ import annotations

import asyncio

import aiohttp

from tests.running import RunningRoost, wait_for


async def test_metrics_tell_the_depth_of_a_queue_and_what_was_answered(roost: RunningRoost) -> None:
    key = roost.key("scraper")
    nc = await roost.client()
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def value(name: str) -> float:
            async with http.get(f"{roost.http}/metrics") as response:
                lines = (await response.text()).splitlines()
            found = [line for line in lines if line.startswith(name)]
            return float(found[0].rpartition(" ")[2]) if found else 0.0

        asks = [asyncio.create_task(roost.ask(nc, {"text": f"wait {i}", "model": "one"})) for i in range(12)]

        async def deep() -> bool:
            return await value('roost_queue_depth{model="one"}') >= 2

        await wait_for(deep, 10, "messages wait for the model `one`")
        await asyncio.gather(*asks)

        async def empty() -> bool:
            return await value('roost_queue_depth{model="one"}') == 0

        await wait_for(empty, 10, "nothing waits any more")
        assert await value('roost_answers_total{finish="stop",model="one"}') >= 12
    await nc.close()
