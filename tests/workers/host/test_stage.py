"""A new version beside the one that serves: tried, loaded, asked, switched to, given up; on real lanes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.config import AdapterConfig, ModelConfig
from schemas.model import ModelOrder
from schemas.release import Golden
from schemas.update import RolloutConfig, UpdatesConfig
from tests.bus.real import soon
from tests.tools import brittle
from tests.workers.host import house as houses
from tests.workers.host.house import House, Slot, config, look, opened, told
from workers.host.budget import taken

GOLDENS = (
    Golden(prompt="good morning"),
    Golden(prompt="two words", max_tokens=1),
    Golden(prompt="x", kind="embedding"),
)


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.syspath_prepend(str(brittle.SITE))
    for name, value in brittle.environment().items():
        monkeypatch.setenv(name, value)
    house = await opened(tmp_path)
    yield house
    await house.bus.close()


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return Slot(tmp_path / "talk")


def talk(slot: Slot, **more: Any) -> ModelConfig:
    fields = {k: more.pop(k) for k in list(more) if k in ModelConfig.__struct_fields__}
    return ModelConfig(**{"name": "talk", "type": "brittle", "path": str(slot.link), "settings": more, **fields})


async def test_a_version_is_staged_with_its_golden_answers_and_served_when_the_link_names_it(
    house: House, slot: Slot
) -> None:
    slot.put("2")
    async with house.worker(config(talk(slot))) as models:
        assert (await told(models, ModelOrder(do="prepare", model="talk"))).ok
        staged = await told(models, slot.order("2", goldens=GOLDENS))
        assert staged.ok, staged.text
        assert [answer.text for answer in staged.answers] == ["good~2 morning~2", "two~2", ""]
        assert [answer.finish for answer in staged.answers] == ["stop", "length", ""]
        assert "embeds no texts" in staged.answers[2].error
        assert set(staged.seconds) == {"trial", "load", "warm", "golden"}
        row = await house.shows("talk", candidate=staged.version)
        assert row.version.startswith("1+")
        assert staged.version.startswith("2+")
        assert (await house.answered("r1", "talk", "hello you")).text == "hello~1 you~1"

        slot.point("2")
        seen = await look(models)
        assert (seen.ok, seen.version) == (True, staged.version)
        reply = await house.answered("r2", "talk", "hello you")
        assert (reply.text, reply.version) == ("hello~2 you~2", staged.version)
        await house.shows("talk", candidate="", version=staged.version, state="ready")
        assert {turn.id: turn.version[:2] for turn in await house.turns()} == {"r1": "1+", "r2": "2+"}


async def test_the_same_order_again_answers_at_once_and_another_path_takes_its_place(house: House, slot: Slot) -> None:
    slot.put("2", load_ms=300)
    slot.put("3")
    async with house.worker(config(talk(slot))) as models:
        both = await asyncio.gather(*(told(models, slot.order("2", trial=False)) for _ in range(2)))
        assert both[0] == both[1]
        assert both[0].seconds["load"] >= 0.3
        other = await told(models, slot.order("3", trial=False))
        assert other.version.startswith("3+")
        await house.shows("talk", candidate=other.version)
        slot.point("2")
        assert (await look(models)).version == both[0].version, "it is loaded, though it is staged no more"


@pytest.mark.parametrize(
    ("wrong", "code", "sentence"),
    [
        ({"crash": "load"}, "bad_model", "crashed (SIGABRT) while loading"),
        ({"crash": "answer"}, "bad_model", "crashed (SIGABRT) while answering"),
        ({"hang": "load"}, "bad_model", "did not get on within 1.5 s, while loading"),
        ({"hang": "answer"}, "bad_model", "did not get on within 1.5 s, while answering"),
        ({"takes": 30_000_000_000}, "bad_model", "more memory than it had said"),
        ({"demand": 10**15}, "no_memory", "MB to be tried, and"),
        ({"unknown": 1}, "bad_model", "unknown field"),
    ],
)
async def test_what_a_trial_dies_of_is_told_and_harms_nobody(
    house: House, slot: Slot, wrong: dict[str, Any], code: str, sentence: str
) -> None:
    slot.put("2", **wrong)
    updates = UpdatesConfig(source="-", root="-", load_s=3.0)
    async with house.worker(replace(config(talk(slot, delay_ms=50)), updates=updates)) as models:
        staging = asyncio.create_task(told(models, slot.order("2")))
        for number in range(3):
            assert (await house.answered(f"r{number}", "talk", "still here")).text == "still~1 here~1"
        failed = await staging
        assert (failed.ok, failed.code) == (False, code)
        assert sentence in failed.text
        row = await house.shows("talk", candidate="", state="ready", reason="")
        assert row.version.startswith("1+")


async def test_a_version_that_does_not_fit_says_so_and_in_place_the_other_one_makes_room(
    house: House, slot: Slot
) -> None:
    slot.put("2")
    async with house.worker(config(talk(slot, size="6 GB", delay_ms=30), memory="10 GB")) as models:
        tight = await told(models, slot.order("2", trial=False))
        assert (tight.ok, tight.code) == (False, "no_memory")
        assert tight.text.startswith("needs 6.0 GB: weights 6.0; budget 10.0 GB, of which 6.0 are in use by talk")
        assert (await house.answered("r1", "talk")).text == "r1~1"
        staged = await told(models, slot.order("2", trial=False, in_place=True))
        assert staged.ok, staged.text
        await house.ask("r2", "talk")
        await soon(lambda: models._served["talk"].resident.waiting == 1, "the request waits")
        slot.point("2")
        assert (await look(models)).version == staged.version
        assert (await house.reply("r2")).text == "r2~2"


async def test_when_what_was_made_room_for_goes_the_version_of_the_link_comes_back(house: House, slot: Slot) -> None:
    slot.put("2")
    slot.put("3", crash="load")
    async with house.worker(config(talk(slot, size="6 GB"), memory="10 GB")) as models:
        assert (await told(models, slot.order("2", trial=False, in_place=True))).ok
        await house.ask("r1", "talk")
        assert (await told(models, ModelOrder(do="unstage", model="talk"))).ok
        assert (await house.reply("r1")).text == "r1~1"
        assert not (await told(models, slot.order("3", in_place=True))).ok
        await house.shows("talk", state="ready", candidate="")
        assert (await house.answered("r2", "talk")).text == "r2~1"


async def test_memory_and_folders_of_what_is_given_up_are_given_back(house: House, slot: Slot) -> None:
    slot.put("2", takes=100_000_000)
    async with house.worker(config(talk(slot, size="4 GB"), memory="10 GB")) as models:
        before = taken()
        scratch = house.data / "scratch" / "worker-0" / "talk"
        for _ in range(3):
            assert (await told(models, slot.order("2", trial=False))).ok
            assert len(models._room._grants) == len(list(scratch.iterdir())) == 2
            assert taken() > before + 80_000_000
            await told(models, ModelOrder(do="unstage", model="talk"))
            assert len(models._room._grants) == len(list(scratch.iterdir())) == 1
            await soon(lambda: taken() < before + 50_000_000, "its memory is free")


async def test_another_model_that_needs_the_memory_gets_it_from_what_is_only_staged(house: House, slot: Slot) -> None:
    slot.put("2")
    other = houses.echo("other", size="4 GB", warm_up=False)
    async with house.worker(config(talk(slot, size="4 GB", delay_ms=5), other, memory="10 GB")) as models:
        assert (await told(models, slot.order("2", trial=False))).ok
        assert (await house.answered("r1", "other")).text == "r1"
        await house.shows("other", state="ready")
        slot.point("2")
        await look(models)
        assert (await house.answered("r2", "talk")).text == "r2~2"


async def test_changed_settings_do_not_wait_for_what_is_staged_and_end_it(house: House, slot: Slot) -> None:
    slot.put("2", load_ms=3_000)
    async with house.worker(config(talk(slot))) as models:
        staging = asyncio.create_task(told(models, slot.order("2", trial=False)))
        await soon(lambda: models._served["talk"].stage._candidate is not None, "it is being staged")
        await models.apply(config(talk(slot, description="new", rollout=RolloutConfig(canary=5))))
        await soon(lambda: models._served["talk"].row().description == "new", "the light change is in effect", 2.5)
        await models.apply(config(talk(slot, slots=3)))
        assert (await staging).code == "unavailable"
        await house.shows("talk", slots=3, candidate="", state="ready")


async def test_an_event_makes_the_worker_look_and_one_that_was_missed_is_made_up_for(house: House, slot: Slot) -> None:
    slot.put("2")
    slot.put("3")
    async with house.worker(config(talk(slot))) as models:
        assert (await told(models, slot.order("2", trial=False))).ok
        slot.point("2")
        await house.flipped("talk")
        await soon(lambda: models._served["talk"].resident.version.startswith("2+"), "it serves 2")
        slot.point("1")
        await house.flipped("talk", "rolled_back")
        await soon(lambda: models._served["talk"].resident.version.startswith("1+"), "it serves 1 again, loaded anew")
        bus = models._bus
        bus.disconnect()  # type: ignore[attr-defined]
        slot.point("3")
        await house.flipped("talk")
        bus.reconnect()  # type: ignore[attr-defined]
        await soon(lambda: models._served["talk"].resident.version.startswith("3+"), "it has looked again")


async def test_a_file_replaced_by_hand_is_noticed_by_an_order_or_an_event_alone(house: House, tmp_path: Path) -> None:
    folder = brittle.release(tmp_path / "mine", "~a")
    async with house.worker(config(houses.echo("talk", path=str(folder)))) as models:
        brittle.release(folder, "~b")
        assert (await house.answered("r1", "talk")).text == "r1~a"
        before = models._served["talk"].resident.lane
        await house.flipped("talk")
        await soon(lambda: models._served["talk"].resident.lane is not before, "it was loaded anew")
        assert (await house.answered("r2", "talk")).text == "r2~b"
        now = models._served["talk"].resident.lane
        await look(models)
        assert models._served["talk"].resident.lane is now, "nothing has changed"
        brittle.release(folder, "~c")
        assert (await told(models, ModelOrder(do="reload", model="talk"))).ok
        assert (await house.answered("r3", "talk")).text == "r3~c"


async def test_a_file_that_comes_is_not_read_before_it_has_kept_still(house: House, tmp_path: Path) -> None:
    file = tmp_path / "echo.json"
    async with house.worker(config(houses.echo("talk", path=str(file)))) as models:
        await house.shows("talk", state="absent")
        served = models._served["talk"]
        text = '{"mark": "~late"}'
        for end in range(4, len(text), 4):
            file.write_text(text[:end])
            served._standing.look_at = 0.0
            served._wake.set()
            await soon(lambda: served._standing.look_at > 0, "it has looked")
            assert served._standing.trouble == "absent"
        file.write_text(text)
        assert (await house.answered("r1", "talk")).text == "r1~late"


async def test_a_release_of_an_adapter_is_staged_and_told_in_the_version(
    house: House, slot: Slot, tmp_path: Path
) -> None:
    style = Slot(tmp_path / "style")
    style.put("7")
    model = talk(slot, lora=(AdapterConfig(path=str(style.link)),))
    async with house.worker(config(model)) as models:
        assert models._served["talk"].resident.version.startswith("1+style-1+")
        staged = await told(models, style.order("7", trial=False))
        assert staged.version.startswith("1+style-7+")
        style.point("7")
        await look(models)
        assert models._served["talk"].resident.version == staged.version
        wrong = await told(models, slot.order("1", link=str(tmp_path / "other"), trial=False))
        assert (wrong.ok, wrong.code) == (False, "unavailable")
        assert "does not use" in wrong.text


async def test_requeue_begins_silent_answers_anew_and_lets_the_others_end(house: House, slot: Slot) -> None:
    slot.put("2")
    model = talk(slot, delay_ms=400, delay_token_ms=150, rollout=RolloutConfig(running="requeue"))
    async with house.worker(config(model)) as models:
        assert (await told(models, slot.order("2", trial=False))).ok
        await house.ask("early", "talk", "a b c d e f")
        served = models._served["talk"]
        run = await soon(lambda: next(iter(served.resident.lane._runs.values()), None), "the early one runs")
        await soon(lambda: run.said, "it has said a word")
        await house.ask("late", "talk", "a b")
        await soon(lambda: served.resident.busy == 2, "both run")
        slot.point("2")
        await look(models)
        early, late = await house.reply("early"), await house.reply("late")
        assert early.text == "a~1 b~1 c~1 d~1 e~1 f~1"
        assert late.text == "a~2 b~2"
        assert [turn.attempt for turn in await house.turns()] == [1, 1]


async def test_after_a_restart_the_worker_serves_what_the_link_names(house: House, slot: Slot) -> None:
    slot.put("2")
    async with house.worker(config(talk(slot))) as models:
        assert (await told(models, slot.order("2", trial=False))).ok
    async with house.worker(config(talk(slot))) as models:
        assert models._served["talk"].resident.version.startswith("1+")
        await house.shows("talk", candidate="")
    slot.point("2")
    async with house.worker(config(talk(slot))) as models:
        assert (await house.answered("r1", "talk")).text == "r1~2"


async def test_what_was_made_room_for_must_serve_soon(house: House, slot: Slot) -> None:
    slot.put("2")
    async with house.worker(config(talk(slot, size="6 GB"), memory="10 GB")) as models:
        stage = models._served["talk"].stage
        stage._held_s = 0.2
        assert (await told(models, slot.order("2", trial=False, in_place=True))).ok
        assert (await house.answered("r1", "talk")).text == "r1~1"
        await house.shows("talk", candidate="")


async def test_a_broken_version_that_the_link_names_leaves_the_old_one_serving(house: House, slot: Slot) -> None:
    slot.put("2", unknown=1)
    async with house.worker(config(talk(slot))) as models:
        slot.point("2")
        seen = await look(models)
        assert not seen.ok
        assert "is not a file of echo's" in seen.text
        assert (await house.answered("r1", "talk")).text == "r1~1"
        assert (seen.code, models._served["talk"].row().reason != "") == ("bad_model", True)
        slot.point("1")
        assert (await look(models)).ok
        await house.shows("talk", reason="", state="ready")
