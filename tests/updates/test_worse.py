"""Versions that are worse than the one before, which no golden prompt shows: they go back by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from schemas.model import ModelStatus
from schemas.release import Expected, Golden
from tests.running import wait_for
from tests.updater.publishing import publisher
from tests.updates.following import Following, following
from tests.updates.talkers import Talk, faults, talking

ANYTHING = (Golden(prompt="good morning", expect=Expected(chars_min=0)),)
"""What a publisher asks who does not care."""
WATCHED: dict[str, tuple[dict[str, Any], str]] = {
    "silent": ({"says": "empty"}, "came empty"),
    "loops": ({"says": "repeats"}, "repeated themselves"),
    "slow": ({"slow_ms": 120}, "took"),
}
"""What is worse, and what the operator reads."""
BEFORE = 30
"""Answers of the version before."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Following]:
    folder = tmp_path_factory.mktemp("worse")
    slots = [*WATCHED, "canary", "shadow"]
    with following(
        folder / "here", publisher(folder / "house"), slots, entry={"delay_ms": 5, "delay_token_ms": 5},
        rollout={"watch_s": 300.0, "trial_s": 300.0, "answers_min": 20},
        rollouts={"canary": {"canary": 50}, "shadow": {"shadow": 100}},
    ) as roost:  # fmt: skip
        yield roost


async def answers(talk: Talk, before: int, count: int) -> bool:
    return len(talk.since(before)) >= count


async def alerted(here: Following, bus: Any, code: str, *words: str) -> bool:
    return any(all(word in text for word in words) for text in (await here.alerts(bus)).get(code, []))


def of_old(talk: Talk) -> Talk:
    """Only what the old version has answered: of the new one nothing else is expected than that it is bad."""
    talk.replies = [reply for reply in talk.replies if reply.release == "0"]
    return talk


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", WATCHED)
async def test_a_version_that_is_worse_is_rolled_back_by_itself(here: Following, name: str) -> None:
    wrong, reason = WATCHED[name]
    async with here.bus() as bus:
        async with talking(here, name, count=4, words=6, name=name) as talk:
            await wait_for(lambda: answers(talk, 0, BEFORE), 60, "the old one is known")
            await here.take(bus, "1", name, goldens=ANYTHING, **wrong)
            assert reason in await here.blocked("1", name)
            before = len(talk.replies)
            await wait_for(lambda: answers(talk, before, 8), 30, "all ask on")
        assert here.serves(name) == "0"
        last = here.record(name).history[-1]
        assert (last.what, last.version, last.previous, last.by) == ("rolled_back", "0", "1", "ops")
        assert reason in last.reason
        for code in ("rolled_back", "update_rolled_back"):
            await wait_for(lambda c=code: alerted(here, bus, c, name, reason), 10, f"alert {code}")
        seen = {reply.release for reply in talk.replies}
        assert seen == {"0", "1"}, "it did serve"
        assert {reply.release for reply in talk.since(before)} == {"0"}
        turns = await here.turns(bus)
        assert len({turn.id for turn in turns}) == len(turns)
        assert faults(of_old(talk), turns, ("0",)) == []
        told = await here.order(bus, "check")
        assert told.ok
        assert here.record(name).swap is None, "it is not tried again"


async def freed(bus: Any, model: str) -> bool:
    rows = [msgspec.json.decode(row, type=ModelStatus) for row in (await bus.table("MODELS").entries()).values()]
    return all(not row.candidate for row in rows if row.name == model)


@pytest.mark.timeout(90)
async def test_a_canary_that_is_worse_never_serves_everybody(here: Following) -> None:
    async with here.bus() as bus:
        async with talking(here, "canary", count=6, words=6, name="canary") as talk:
            await wait_for(lambda: answers(talk, 0, BEFORE), 60, "the old one is known")
            await here.take(bus, "1", "canary", goldens=ANYTHING, says="empty")
            reason = await here.blocked("1", "canary")
            await wait_for(lambda: freed(bus, "canary"), 10, "no worker has it beside the old one any more")
            before = len(talk.replies)
            await wait_for(lambda: answers(talk, before, 12), 30, "all ask on")
        assert "came empty" in reason
        history = here.record("canary").history
        assert [change.what for change in history] == ["fetched", "refused"], "the link never named it"
        assert history[-1].by == "ops"
        assert {reply.release for reply in talk.replies} == {"0", "1"}, "some conversations had it"
        assert {reply.release for reply in talk.since(before)} == {"0"}
        by_talk: dict[str, set[str]] = {}
        for reply in (r for r in talk.replies if r.text is not None):
            by_talk.setdefault(reply.id.rpartition("-")[0], set()).add(reply.release)
        kept = [seen for seen in by_talk.values() if seen == {"1"}]
        assert kept, "a conversation that the new version has begun stays with it"
        assert faults(of_old(talk), await here.turns(bus), ("0",)) == []
        await wait_for(lambda: alerted(here, bus, "update_refused", "canary", "came empty"), 10, "an alert")


@pytest.mark.timeout(90)
async def test_a_version_that_is_worse_in_the_shadow_is_seen_by_nobody(here: Following) -> None:
    async with here.bus() as bus:
        async with talking(here, "shadow", count=4, words=6, name="shadow") as talk:
            await wait_for(lambda: answers(talk, 0, BEFORE), 60, "the old one is known")
            await here.take(bus, "1", "shadow", goldens=ANYTHING, says="repeats")
            reason = await here.blocked("1", "shadow")
        assert "repeated themselves" in reason
        assert {reply.release for reply in talk.replies} == {"0"}
        assert faults(talk, await here.turns(bus), ("0",)) == []
    shown = json.loads(here.cli("update", "status", "--json").stdout)
    row = next(row for row in shown["rows"] if row["name"] == "shadow")
    assert "repeated themselves" in row["reason"]
