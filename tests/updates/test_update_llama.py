"""The real engine takes a new version of the starter model, with golden prompts, under conversations that go on."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from schemas.release import Expected, Golden
from tests.running import wait_for
from tests.updater.publishing import publisher
from tests.updates.following import TALK, Following
from tests.updates.talkers import faults, talking

GOLDENS = (
    Golden(prompt="What is the capital of France? Answer in one word.", expect=Expected(contains=("Paris",))),
    Golden(
        prompt="The days of the week are Monday, Tuesday,", kind="completion",
        expect=Expected(contains=("Wednesday",), finish="length"), max_tokens=4,
    ),
)  # fmt: skip
TOKENS = 12
NAME = b"general.name"
TEXT_AFTER = 12
"""Bytes of a text's type and length, between its key and itself."""


def renamed(source: Path, target: Path) -> Path:
    """A copy with another name in its header, of the same length."""
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        at = file.read(1 << 20).index(NAME) + len(NAME) + TEXT_AFTER
        file.seek(at)
        file.write(b"V2")
    return target


def file_of(model: Path) -> Path:
    return next(model.rglob("*.gguf")) if model.is_dir() else model


@pytest.mark.timeout(300)
async def test_a_real_model_is_replaced_under_eight_conversations(tmp_path: Path, starter_model: Path) -> None:
    weights = file_of(starter_model)
    house = publisher(tmp_path / "house")
    roost = Following(
        tmp_path / "here", house, kind="llama", first=False, entry={"max_tokens": TOKENS, "slots": 8},
        updates={"load_s": 120.0}, rollout={"watch_s": 1.0},
    )  # fmt: skip
    there = roost.slot() / "releases" / "0"
    there.mkdir(parents=True)
    (there / "model.gguf").symlink_to(weights.resolve())
    (roost.slot() / "current").symlink_to("releases/0")
    try:
        await asyncio.to_thread(roost.start)
        async with roost.bus() as bus:
            async with talking(roost, count=8, words=12, answer_s=120, max_tokens=TOKENS) as talk:
                await wait_for(lambda: answers(talk, 0, 8), 120, "the first answers")
                second = renamed(weights, tmp_path / "second.gguf")
                release = await asyncio.to_thread(
                    house.release, TALK, "2", {"model.gguf": second}, GOLDENS, origin="a test"
                )
                second.unlink()
                assert (release.type, release.size) == ("llama", weights.stat().st_size)
                assert (await roost.order(bus, "check")).ok
                await roost.settled("2", timeout_s=120)
                before = len(talk.replies)
                await wait_for(lambda: answers(talk, before, 8), 120, "all ask on")
            turns = await roost.turns(bus)
            assert faults(talk, turns, ("0", "2"), marked=False) == []
            assert {reply.release for reply in talk.since(before)} == {"2"}
            assert not any(reply.refused or reply.asked > 1 for reply in talk.replies), "nobody was told to wait"
            assert all(reply.text for reply in talk.replies)
            assert {turn.worker for turn in turns} == {turns[0].worker}, "no process was started anew"

            swapped = next(change for change in roost.record().history if change.what == "swapped")
            print({stage: round(seconds, 3) for stage, seconds in swapped.seconds.items()}, swapped.fetched)
            assert {"fetch", "trial", "load", "warm", "golden", "flip"} <= swapped.seconds.keys()
            assert swapped.fetched == 0 or swapped.fetched < 0.05 * release.size, "what is here is not fetched"

            # a third one whose golden prompts it cannot answer never serves
            wrong = (replace(GOLDENS[0], expect=Expected(contains=("Quito",))),)
            third = renamed(weights, tmp_path / "third.gguf")
            with third.open("r+b") as file:
                file.seek(-4, 2)
                file.write(b"\x01")
            await asyncio.to_thread(house.release, TALK, "3", {"model.gguf": third}, wrong)
            async with talking(roost, count=8, words=12, name="u", answer_s=120, max_tokens=TOKENS) as talk:
                assert (await roost.order(bus, "check")).ok
                reason = await roost.blocked("3", timeout_s=90)
            assert "lacks 'Quito'" in reason
            assert "Paris" in reason
            assert faults(talk, await roost.turns(bus), ("2",), marked=False) == []
    except BaseException:
        print(roost.logs())
        raise
    finally:
        await asyncio.to_thread(roost.stop)


async def answers(talk: object, before: int, count: int) -> bool:
    return len(talk.since(before)) >= count  # type: ignore[attr-defined]
