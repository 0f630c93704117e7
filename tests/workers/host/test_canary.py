"""Which version answers while a new one gets a share of the conversations; and the shadow of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from schemas.config import ModelConfig
from schemas.message import Inbound, Message, Sender
from schemas.model import ModelOrder, ShadowAnswer
from schemas.session import Entry
from tests.bus.real import soon
from tests.workers.host.house import House, Slot, config, echo, look, opened, told
from workers.host.canary import goes_new

NEW, OLD = "2+new", "1+old"


def inbound(conversation: str = "c", id_: str = "r", *, history: tuple[Message, ...] | None = None) -> Inbound:
    return Inbound(
        id=id_, conversation=conversation, sender=Sender("ann"), text="x", channel="chat", model="talk", history=history
    )


def answered(version: str, model: str = "talk") -> tuple[Entry, ...]:
    return (
        Entry(role="user", text="x", request="q", at=0.0),
        Entry(role="assistant", text="y", request="q", at=0.0, model=model, version=version),
    )


def test_a_share_of_new_conversations_goes_to_the_new_version_and_the_same_ones_each_time() -> None:
    def chosen(percent: int) -> set[int]:
        return {n for n in range(1000) if goes_new(inbound(f"c{n}", f"r{n}"), (), version=NEW, percent=percent)}

    ten, half = chosen(10), chosen(50)
    assert 70 < len(ten) < 130
    assert 440 < len(half) < 560
    assert ten < half
    assert chosen(10) == ten
    assert chosen(0) == set()
    assert len(chosen(100)) == 1000


@pytest.mark.parametrize(("version", "new"), [(NEW, True), (OLD, False), ("", False)])
def test_a_conversation_stays_with_the_version_that_answered_it_last(version: str, new: bool) -> None:
    history = answered(OLD if new else NEW) + answered(version)
    assert [goes_new(inbound(f"c{n}"), history, version=NEW, percent=50) for n in range(50)] == [new] * 50


def test_what_another_model_answered_says_nothing() -> None:
    assert goes_new(inbound(), answered(OLD, model="other"), version=NEW, percent=100)


def test_of_requests_with_their_own_history_only_first_ones_are_new_and_go_by_their_id() -> None:
    first, later = (Message("user", "a"),), (Message("user", "a"), Message("assistant", "b"))
    assert not goes_new(inbound(history=later), (), version=NEW, percent=100)
    chosen = {n for n in range(400) if goes_new(inbound("c", f"r{n}", history=first), (), version=NEW, percent=50)}
    assert 150 < len(chosen) < 250
    assert all(goes_new(inbound("d", f"r{n}", history=first), (), version=NEW, percent=50) for n in chosen)


# -- on a worker ----------------------------------------------------------------------------------------------


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


def talk(slot: Slot, **more: object) -> ModelConfig:
    return echo("talk", path=str(slot.link), **more)


async def test_conversations_stay_on_their_version_through_the_canary_and_all_move_at_the_switch(
    house: House, slot: Slot
) -> None:
    async with house.worker(config(talk(slot))) as models:
        assert (await told(models, ModelOrder(do="share", model="talk", canary=50))).code == "unavailable"
        assert (await house.answered("r-old", "talk", conversation="old")).text == "r-old~1"
        assert (await told(models, slot.order("2", trial=False))).ok
        assert (await told(models, ModelOrder(do="share", model="talk", canary=50))).ok
        seen: dict[str, set[str]] = {}
        for turn in range(3):
            replies = [house.answered(f"r{n}-{turn}", "talk", conversation=f"c{n}") for n in range(20)]
            for n, reply in enumerate(await asyncio.gather(*replies)):
                assert reply.text.endswith(f"~{reply.version[0]}")
                seen.setdefault(f"c{n}", set()).add(reply.version[0])
        assert all(len(versions) == 1 for versions in seen.values())
        assert set.union(*seen.values()) == {"1", "2"}
        assert (await house.answered("r-old2", "talk", conversation="old")).text == "r-old2~1"
        slot.point("2")
        await look(models)
        replies = [house.answered(f"last{n}", "talk", conversation=f"c{n}") for n in range(20)]
        assert {reply.version[0] for reply in await asyncio.gather(*replies)} == {"2"}


async def test_who_waits_for_a_version_that_is_taken_back_is_answered_by_the_other(house: House, slot: Slot) -> None:
    async with house.worker(config(talk(slot, slots=1, delay_ms=300))) as models:
        assert (await told(models, slot.order("2", trial=False))).ok
        await told(models, ModelOrder(do="share", model="talk", canary=100))
        served = models._served["talk"]
        candidate = served.stage._candidate
        assert candidate is not None
        async with candidate.resident.use("somebody"):
            await house.ask("r1", "talk")
            await soon(lambda: candidate.resident.waiting == 1, "it waits for the new version")
            taking = asyncio.create_task(told(models, ModelOrder(do="unstage", model="talk")))
            assert (await house.reply("r1")).text == "r1~1"
        assert (await taking).ok


async def test_the_shadow_answers_copies_tells_figures_and_leaves_no_trace(house: House, slot: Slot) -> None:
    async with house.worker(config(talk(slot, delay_token_ms=5))) as models:
        assert (await told(models, slot.order("2", trial=False))).ok
        await told(models, ModelOrder(do="share", model="talk", shadow=100))
        reply = await house.answered("r1", "talk", "one two three")
        assert reply.text == "one~1 two~1 three~1"

        async def told_of() -> list[ShadowAnswer]:
            events = [e async for e in house.bus.read("EVENTS", "roost.event.shadow.talk")]
            return [msgspec.json.decode(e.data, type=ShadowAnswer) for e in events]

        (figures,) = await soon(told_of, "the shadow's figures")
        assert (figures.ok, figures.version[0], figures.text_chars, figures.alike) == (True, "2", 19, 0.0)
        assert figures.token_ms > 4
        assert [turn.version[0] for turn in await house.turns()] == ["1"]
        assert len([m async for m in house.bus.read("OUTBOX", "roost.out.>")]) == 1
        assert models._served["talk"].resident.tokens == 3


async def test_the_shadow_never_delays_and_drops_what_it_cannot_do(house: House, slot: Slot) -> None:
    slow = slot.put("3")
    async with house.worker(config(talk(slot, slots=1, delay_ms=20))) as models:
        assert (await told(models, slot.order("3", trial=False))).ok, slow
        await told(models, ModelOrder(do="share", model="talk", shadow=100))
        candidate = models._served["talk"].stage._candidate
        assert candidate is not None
        assert candidate.shadow is not None
        async with candidate.resident.use("somebody"):
            for number in range(10):
                await house.answered(f"r{number}", "talk")
            assert len(candidate.shadow._waiting) == 4
        slot.point("3")
        await look(models)
        assert (await house.answered("r-last", "talk")).text == "r-last~3"
        assert models._served["talk"].resident.busy == 0
