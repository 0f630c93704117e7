"""Swaps under load: whatever happens meanwhile, every request has one answer, and every answer one version."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.config import ModelConfig
from schemas.message import Outbound, Sampling
from schemas.model import ModelOrder
from schemas.release import Golden
from schemas.update import RolloutConfig
from tests.bus.real import soon
from tests.workers.host.house import House, Slot, config, echo, look, opened, told

CONVERSATIONS = 16
SWAPS = 30


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = await opened(tmp_path)
    yield house
    await house.bus.close()


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    slot = Slot(tmp_path / "talk")
    slot.put("2")
    return slot


def sound(reply: Outbound, text: str) -> str:
    """The version that answered, when every word has its mark and none is missing."""
    assert reply.error is None, reply
    version = reply.version.partition("+")[0]
    assert reply.text == " ".join(f"{word}~{version}" for word in text.split())
    return version


@pytest.mark.parametrize("running", ["finish", "requeue"])
async def test_swaps_under_load_lose_double_and_mix_nothing(house: House, slot: Slot, running: Any) -> None:
    model = echo("talk", path=str(slot.link), slots=8, delay_ms=10, delay_token_ms=5)
    patient = config(replace(model, rollout=RolloutConfig(running=running)))
    patient = replace(patient, limits=replace(patient.limits, ack_wait_s=10.0))  # a busy machine is no lost worker
    text = "seven words and a mark at each"
    answered: list[str] = []
    done = threading.Event()

    async def converse(number: int) -> None:
        asked = 0
        while not done.is_set():
            asked += 1
            id_ = f"r{number}-{asked}"
            answered.append(sound(await house.answered(id_, "talk", text, f"c{number}"), text))

    async with house.worker(patient) as models:
        async with asyncio.TaskGroup() as tasks:
            for number in range(CONVERSATIONS):
                tasks.create_task(converse(number))
            await soon(lambda: len(answered) > CONVERSATIONS, "all of them talk")
            for swap in range(SWAPS):
                version = "21"[swap % 2]
                staged = await told(models, slot.order(version, trial=False, goldens=(Golden(prompt="hello"),)))
                assert staged.ok, staged.text
                slot.point(version)
                seen = await look(models)
                assert (seen.ok, seen.version) == (True, staged.version)
                at = len(answered)
                await soon(lambda at=at: len(answered) > at + 4, "they go on")
            done.set()
        assert len(models._room._grants) <= 2
        await soon(lambda: len(models._room._grants) == 1, "the old lanes have gone")
    turns = await house.turns()
    replies = [m async for m in house.bus.read("OUTBOX", "roost.out.>")]
    assert len(turns) == len(replies) == len(answered)
    assert set(Counter(turn.id for turn in turns).values()) == {1}
    assert {turn.attempt for turn in turns} == {1}
    for turn in turns:
        assert set(re.findall(r"~(\d)", turn.text)) == {turn.version[0]}
    assert set(answered) == {"1", "2"}


async def test_a_link_that_changes_in_the_middle_of_a_load_mixes_nothing(house: House, slot: Slot) -> None:
    """Model and adapter are loaded from one version, whatever the link says when the load ends."""
    model = echo("talk", path=str(slot.link))
    async with house.worker(config(model)) as models:
        for number in range(6):
            version = "21"[number % 2]
            slot.point(version)
            reloading = asyncio.create_task(told(models, ModelOrder(do="reload", model="talk")))
            await asyncio.sleep(0)
            slot.point("12"[number % 2])
            assert (await reloading).ok
            await look(models)
            sound(await house.answered(f"r{number}", "talk", "one two"), "one two")
            assert models._served["talk"].resident.version[0] == "12"[number % 2]


# -- with llama.cpp -------------------------------------------------------------------------------------------


def renamed(source: Path, target: Path, name: str) -> None:
    """A copy of a GGUF file with another `general.name` of the same length: another version that computes alike."""
    file = next(iter(sorted(source.glob("*.gguf"))), source) if source.is_dir() else source
    data = file.read_bytes()
    at = data.index(b"general.name") + len(b"general.name") + 4
    length = int.from_bytes(data[at : at + 8], "little")
    target.mkdir(parents=True)
    (target / "model.gguf").write_bytes(data[: at + 8] + name.ljust(length)[:length].encode() + data[at + 8 + length :])


async def test_a_llama_is_staged_beside_another_and_takes_its_conversations_over(
    house: House, starter_model: Path, tmp_path: Path
) -> None:
    slot = Slot(tmp_path / "llama")
    for version in ("a", "b"):
        folder = slot.folder / "releases" / version
        renamed(starter_model, folder, f"version {version}")
        (folder / "RELEASE.json").write_text(f'{{"name": "llama", "version": "{version}", "files": []}}')
    slot.point("a")
    settings = {"context": 256, "cache": 512, "batch": 32, "threads": 1, "pages_disk": "0"}
    model = ModelConfig(name="talk", type="llama", path=str(slot.link), slots=2, settings=settings)
    question, short = "How many legs has a spider?", Sampling(temperature=0, max_tokens=6)
    goldens = (Golden(prompt=question, max_tokens=6), Golden(prompt="hello", kind="embedding"))
    async with house.worker(config(model)) as models:
        first = await house.answered("r1", "talk", question, "c1", sampling=short)
        await house.ask("r2", "talk", question, "c2", sampling=Sampling(temperature=0, max_tokens=80, ignore_eos=True))
        await told(models, ModelOrder(do="prepare", model="talk"))
        staged = await told(models, slot.order("b", goldens=goldens))
        assert staged.ok, staged.text
        assert staged.answers[0].text == first.text, "the same weights say the same"
        assert staged.answers[1].dimensions == 576
        assert staged.version != first.version
        slot.point("b")
        assert (await look(models)).version == staged.version
        after = await house.answered("r3", "talk", question, "c1", sampling=short)
        running = await house.reply("r2", "c2")
        assert (running.version, running.usage.completion_tokens) == (first.version, 80)
        assert (after.version, after.error) == (staged.version, None)
        broken = slot.folder / "releases" / "c"
        broken.mkdir()
        (broken / "model.gguf").write_bytes((slot.folder / "releases/b/model.gguf").read_bytes()[:5_000_000])
        failed = await told(models, slot.order("c"))
        assert (failed.ok, failed.code) == (False, "bad_model")
        assert (await house.answered("r4", "talk", question, "c4", sampling=short)).version == staged.version
