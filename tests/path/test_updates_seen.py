"""A new version under watch in a whole Roost: rolled back by `ops`, and seen in status, metrics and the page's list."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import nats
import pytest

from bus.site import site, worker
from schemas.message import Inbound, Sender, Timings, Usage
from schemas.model import ModelEvent
from schemas.turn import Turn
from schemas.update import UpdateOrder, UpdateStatus, UpdateTold
from tests.running import RunningRoost, wait_for

NAME = "watched-slots"
encode = msgspec.json.encode


@pytest.fixture
async def part(roost: RunningRoost) -> AsyncIterator[Any]:
    """The bus as a part of Roost sees it."""
    nc = await nats.connect(roost.nats_url, nkeys_seed=str(roost.data / "secrets" / "parts.nk"))
    yield nc
    await nc.request(f"$KV.UPDATES.{NAME}.{site(roost.data)}", b"", timeout=5, headers={"KV-Operation": "DEL"})
    await nc.close()


def turn(roost: RunningRoost, number: int, version: str, text: str, at: float) -> Turn:
    return Turn(
        id=f"watched-{number}", channel="nats", conversation="watched", model="one", version=version, text=text,
        inbound=Inbound(id=f"watched-{number}", conversation="watched", sender=Sender("s"), text=f"{number}"),
        finished_at=at, worker=worker(roost.data, 0), usage=Usage(5, 10), timings=Timings(0.0, 5.0, 50.0),
    )  # fmt: skip


async def test_a_bad_version_is_sent_back_and_the_operator_sees_all_of_it(roost: RunningRoost, part: Any) -> None:
    here, orders = site(roost.data), []

    async def store(subject: str, value: Any) -> None:
        answer = json.loads((await part.request(subject, encode(value), timeout=5)).data)
        assert "error" not in answer, answer

    async def asked(message: Any) -> None:
        orders.append(msgspec.json.decode(message.data, type=UpdateOrder))
        await message.respond(encode(UpdateTold(text="going back")))

    await part.subscribe(f"roost.updater.{here}", cb=asked)
    now = time.time()
    for number in range(30):
        text = f"A sound answer, which is number {number}."
        await store("roost.turn.nats.watched", turn(roost, number, "1+aaaaaaaaaaaa", text, now - 60))
    row = UpdateStatus(
        name=NAME, site=here, phase="watching", at=now, current="2", version="2", done=90, size=90, fetched=30,
        until=now + 300, models=("one",),
    )  # fmt: skip
    event = ModelEvent(model="one", what="swapped", at=now, version="2", previous="1", site=here, until=now + 300)
    await store(f"$KV.UPDATES.{NAME}.{here}", row)
    await store("roost.event.model.one.swapped", event)
    for number in range(30, 60):
        await store("roost.turn.nats.watched", turn(roost, number, "2+bbbbbbbbbbbb", "", time.time()))

    async def told() -> Any:
        done = await asyncio.to_thread(roost.cli, "events", "tail", "--since", "2m", "--no-follow", "--json")
        return [line for line in done.stdout.splitlines() if '"rolled_back"' in line and NAME in line]

    [alert] = await wait_for(told, 30, "the alert")
    assert re.search(r"30 of 30 answers came empty, 0 of \d+ before", alert)
    assert [(order.do, order.name, order.by) for order in orders] == [("rollback", NAME, "ops")]

    await store(f"$KV.UPDATES.{NAME}.{here}", row)  # rows age out after half a minute
    status = await asyncio.to_thread(roost.status)
    [seen] = [r for r in status["updates"] if r["name"] == NAME]
    assert (seen["phase"], seen["version"], seen["models"]) == ("watching", "2", ["one"])
    text = (await asyncio.to_thread(roost.cli, "status")).stdout
    [line] = [line for line in text.splitlines() if line.startswith(NAME)]
    assert "watching" in line
    assert "100 % of 90 B" in line

    key = await asyncio.to_thread(roost.key, "updates")
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:

        async def measured() -> set[str]:
            head = {"Authorization": f"Bearer {key}"}
            async with http.get(f"{roost.http}/metrics", headers=head) as response:
                return set((await response.text()).splitlines())

        async def counted() -> bool:
            labels = f'name="{NAME}",site="{here}"'
            return {
                f'roost_update_phase{{name="{NAME}",phase="watching",site="{here}"}} 1.0',
                f"roost_update_fetched_bytes{{{labels}}} 30.0",
                f'roost_model_changes_total{{model="one",site="{here}",what="swapped"}} 1.0',
            } <= await measured()

        await wait_for(counted, 15, "gauges and counter")
        async with http.post(
            f"{roost.http}/api/login", json={"code": roost.code()}, headers={"Origin": roost.http}
        ) as answer:
            assert answer.status == 200, await answer.text()
        async with http.get(f"{roost.http}/api/models") as answer:
            models = {model["name"]: model["update"] for model in await answer.json()}
    assert models["one"]["name"] == NAME
    assert models["one"]["phase"] == "watching"
    assert models["echo"] is None
