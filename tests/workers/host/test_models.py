"""All models of a worker, over the bus in memory, with the echo backend on real lanes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from bus import dead
from bus.memory import MemoryBus
from schemas.config import ModelConfig
from schemas.model import ModelOrder
from schemas.turn import Turn
from tests.bus.real import soon
from tests.tools import painter
from tests.workers.host.house import BASE, House, config, echo, opened


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = await opened(tmp_path)
    yield house
    await house.bus.close()


async def test_a_model_that_is_asleep_is_loaded_by_its_first_request(house: House) -> None:
    async with house.worker(config(echo("late", warm_up=False))):
        await house.shows("late", state="asleep", kinds=("chat", "completion"))
        await house.ask("r1", "late")
        assert (await house.reply("r1")).text == "r1"
        await house.shows("late", state="ready")


async def test_a_request_that_waits_for_memory_is_kept_alive_by_heartbeats(house: House) -> None:
    models = (echo("a", size="6 GB", delay_ms=2_000), echo("b", size="6 GB", warm_up=False))
    async with house.worker(config(*models, memory="10 GB")):
        await house.ask("r1", "a")
        await house.shows("a", state="ready")
        await house.ask("r2", "b")
        assert (await house.reply("r2")).text == "r2"
        turns = [msgspec.json.decode(m.data, type=Turn) async for m in house.bus.read("TURNS", "roost.turn.>")]
        assert {turn.id: turn.attempt for turn in turns} == {"r1": 1, "r2": 1}


async def test_a_removed_model_leaves_no_row_and_answers_with_the_reason(house: House) -> None:
    both = config(echo("stays"), echo("goes"))
    async with house.worker(both) as models:
        await house.shows("goes", state="ready")
        await models.apply(config(echo("stays")))
        await house.ask("r1", "goes")
        reply = await house.reply("r1")
        assert reply.error is not None
        assert reply.error.code == "model_removed"
        assert await house.row("goes") is None
        assert [letter.id for _, letter in await dead.dead_letters(house.bus)] == ["r1"]
        await models.apply(both)
        await house.ask("r2", "goes")
        assert (await house.reply("r2")).text == "r2"


async def test_messages_to_a_removed_model_are_left_to_another_worker_that_has_it(house: House) -> None:
    here, there = config(echo("stays"), echo("goes")), config(echo("goes", delay_ms=200, slots=1))
    async with house.worker(here) as models, house.worker(there, "there-1"):
        await models.apply(config(echo("stays")))
        await soon(lambda: "goes" not in models.consumers, "it no longer consumes")
        for number in range(3):
            await house.ask(f"r{number}", "goes")
        assert [(await house.reply(f"r{n}")).text for n in range(3)] == ["r0", "r1", "r2"]


async def test_what_waits_for_a_model_that_was_removed_while_the_worker_was_away_is_told(house: House) -> None:
    async with house.worker(config(echo("stays"), echo("goes"))):
        await house.shows("goes", state="ready")
    await house.ask("r1", "goes")
    async with house.worker(config(echo("stays"))):
        reply = await house.reply("r1")
        assert reply.error is not None
        assert reply.error.code == "model_removed"
    async with house.worker(config(echo("stays"))) as models:
        assert "goes" not in models.consumers


async def test_a_queue_opens_when_the_bus_is_back(house: House) -> None:
    bus = MemoryBus(house.server, BASE)
    async with house.worker(config(echo("talk")), bus=bus) as models:
        bus.disconnect()
        await models.apply(config(echo("talk"), echo("new")))
        await soon(lambda: "new" in models.consumers, "it tries")
        bus.reconnect()
        await house.ask("r1", "new")
        assert (await house.reply("r1")).text == "r1"


async def test_a_change_that_needs_no_new_lane_takes_effect_on_the_old_one(house: House) -> None:
    async with house.worker(config(echo("talk"))) as models:
        await house.shows("talk", state="ready")
        loaded = [e async for e in house.bus.read("EVENTS", "roost.event.model.talk.loaded")]
        await models.apply(config(echo("talk", description="for everything", system="Be brief.")))
        await house.ask("r1", "talk")
        await house.reply("r1")
        told = await models.obey(ModelOrder(do="unload", model="talk"))
        assert told[0].ok
        assert (await house.shows("talk", state="asleep")).description == "for everything"
        assert [e async for e in house.bus.read("EVENTS", "roost.event.model.talk.loaded")] == loaded


async def test_a_broken_model_harms_no_other_and_its_file_is_taken_when_it_comes(house: House, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    async with house.worker(config(echo("broken", path=str(file)), echo("huge", size="200 GB"), echo("fine"))):
        assert "does not exist" in (await house.shows("broken", state="absent")).reason
        assert (await house.shows("huge", state="failed")).reason.startswith("needs 200.0 GB: weights 200.0; budget")
        await house.ask("r1", "fine")
        assert (await house.reply("r1")).text == "r1"
        await house.ask("r2", "broken")
        file.write_text("{}")
        assert (await house.reply("r2")).text == "r2"


async def test_scratch_folders_are_given_back(house: House) -> None:
    async with house.worker(config(echo("talk"))) as models:
        await models.apply(config(echo("talk", slots=3)))
        await house.shows("talk", slots=3, state="ready")
        folder = house.data / "scratch" / "worker-0" / "talk"
        await soon(lambda: len(list(folder.iterdir())) == 1, "the old one's folder is gone")
    assert not folder.exists()


async def test_nobody_waits_for_a_model_of_the_background_to_load(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(painter.SITE))
    paint = tmp_path / "paint"
    slow = ModelConfig(name="painter", type="painter", settings={"waits_for": str(paint)})
    async with house.worker(config(slow, echo("talk"))):
        await house.shows("painter", state="loading")
        assert (await house.answered("r1", "talk")).text == "r1"
        await house.shows("painter", state="loading")
        paint.touch()
        await house.shows("painter", state="ready")
