"""`kill -9` of any process at any step of updates: all that is asked is answered, once, by a good version.

Versions are published all the while, every fourth of them bad, and now and then the operator goes back to the one
before; somebody is killed on that way in every run. ROOST_KILLS says how many kills, ROOST_TEST_SEED repeats a run;
`tests/updater/test_store.py` and its neighbours kill the updater at every single event of the disk besides.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bus.programs import free_port
from schemas.errors import RoostError
from schemas.release import RELEASE_FILE
from tests.running import wait_for
from tests.updater.cutting import noise, weights
from tests.updater.publishing import publisher
from tests.updates.following import TALK, Following, golden, mark
from tests.updates.talkers import faults, talking
from updater.store import Store

KILLS = int(os.environ.get("ROOST_KILLS", "24"))
LIMIT_S = 300 + 15 * KILLS
SEED = int(os.environ.get("ROOST_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
VICTIMS = ("updater",) * 5 + ("worker",) * 4 + ("nats",) * 3 + ("valkey", "ops", "supervisor")
AT_ONCE = 3
"""So many may be killed at the same moment."""
IN_A_ROW, SPARED_S = 4, 11.0
"""A part that was killed so often is spared for this long, else the supervisor would wait with starting it anew."""
BACK = "rolling_back"
STEPS = ("fetching", "staged", "loading", "shadow", "canary", "switching", "watching", BACK)
ORDERED = "the operator goes back"
STEP_S = 2.5
"""For so long a step is waited for; some are over before they can be seen."""
BAD_EVERY = 4
WEIGHTS = weights(noise(1, 3_000_000))


class Versions:
    """Publishes one after the other; knows which of them are good."""

    def __init__(self, roost: Following) -> None:
        self.roost = roost
        self.count = 0
        self.good = {"0"}

    @property
    def newest(self) -> str:
        return str(self.count)

    def publish(self, *, good: bool | None = None) -> None:
        self.count += 1
        good = self.count % BAD_EVERY != 0 if good is None else good
        wrong = {} if good else {"says": "garbage"}
        at = 1_000_000 + 1_000 * self.count
        files = {
            "echo.json": json.dumps({"mark": mark(self.newest), **wrong}).encode(),
            "weights.safetensors": WEIGHTS[:at] + noise(self.count, 100_000) + WEIGHTS[at + 100_000 :],
        }
        self.roost.house.release(TALK, self.newest, files, goldens=(golden(self.newest),))
        if good:
            self.good.add(self.newest)


class Victims:
    """Chooses whom to kill."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._row: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    def choose(self) -> list[str]:
        now = time.monotonic()
        for victim, at in self._last.items():
            if now - at > SPARED_S:
                self._row[victim] = 0
        there = [victim for victim in VICTIMS if self._row[victim] < IN_A_ROW]
        return sorted({self._rng.choice(there) for _ in range(self._rng.randint(1, AT_ONCE))}) if there else []

    def back(self, victim: str) -> None:
        self._row[victim] += 1
        self._last[victim] = time.monotonic()


def serving(roost: Following) -> str:
    """What is wrong with what serves; empty where it is one whole release."""
    store = Store(roost.slot())
    version = store.current()
    if not version:
        return "current names nothing"
    if version != "0" and not (store.path(version) / RELEASE_FILE).is_file():
        return f"{version} serves and is no release"
    return "" if store.whole(version) else f"{version} serves and is not whole"


async def hint(roost: Following, bus: Any) -> None:
    """As `roost release push` does; whoever is away looks by itself when it is back."""
    try:
        async with asyncio.timeout(2.0):
            await bus.event("release", "published", body={"name": TALK, "at": time.time()})
    except (RoostError, TimeoutError):
        return


async def reached(roost: Following, *steps: str) -> None:
    """Wait until one of these is under way; `rest`: nothing is."""
    end = time.monotonic() + STEP_S
    while time.monotonic() < end:
        swap = roost.record().swap
        if (swap.step if swap is not None else "rest") in steps:
            return
        await asyncio.sleep(0.005)


async def go_back(roost: Following, bus: Any) -> None:
    """Where there is no version to go back to, or nobody hears it, nothing comes of it."""
    try:
        await roost.order(bus, "rollback", TALK, reason=ORDERED)
    except RoostError:
        return


async def on_the_way_back(roost: Following, bus: Any, rng: random.Random) -> str:
    """Once a version serves, order to go back; otherwise as `at_step`."""
    await reached(roost, "rest", "watching")
    async with asyncio.TaskGroup() as tasks:
        order = tasks.create_task(go_back(roost, bus))
        step = await at_step(roost, BACK, rng)
        order.cancel()  # whoever would answer may be the next victim
    return step


async def at_step(roost: Following, step: str, rng: random.Random) -> str:
    """Wait for a step of an update, and a moment; returns the step at which things are then."""
    await reached(roost, step)
    await asyncio.sleep(rng.choice((0.0, 0.01, 0.1, 0.5)) * rng.random())
    swap = roost.record().swap
    return swap.step if swap is not None else "rest"


async def settle(roost: Following, bus: Any, version: str) -> None:
    """Wait until `version` serves and nothing is under way, asking for it now and then."""
    for attempt in range(6):
        await hint(roost, bus)
        try:
            await roost.settled(version, timeout_s=20)
            return
        except AssertionError:
            if attempt == 5:
                raise


@pytest.mark.timeout(LIMIT_S)
async def test_kills_at_any_step_lose_nothing_and_serve_nothing_bad(tmp_path: Path) -> None:
    print(f"ROOST_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    roost = Following(
        tmp_path / "here", publisher(tmp_path / "house"), entry={"delay_ms": 60, "delay_token_ms": 10},
        rollout={"watch_s": 0.3, "shadow": 30, "canary": 30, "trial_s": 0.6, "answers_min": 100_000},
        bus={"listen": f"127.0.0.1:{free_port('127.0.0.1')}"},
        sessions={"listen": f"127.0.0.1:{free_port('127.0.0.1')}"},
        limits={"ack_wait_s": 2.0, "drain_s": 3.0, "deliveries_max": 50},
    )  # fmt: skip
    versions = Versions(roost)
    victims, hits, back = Victims(rng), Counter[str](), 0
    try:
        await asyncio.to_thread(roost.start)
        async with roost.bus() as bus:
            async with talking(roost, count=4, words=6, name="k") as talk:
                while hits.total() < KILLS or not back:
                    if roost.record().swap is None:
                        await asyncio.to_thread(versions.publish)
                        await hint(roost, bus)
                    chosen = victims.choose()
                    step = rng.choice(STEPS) if hits.total() < KILLS else BACK
                    there = on_the_way_back(roost, bus, rng) if step == BACK else at_step(roost, step, rng)
                    step = await there
                    began = time.monotonic()
                    killed = {victim: await asyncio.to_thread(roost.kill, victim) for victim in chosen}
                    what = f"kill of {' and '.join(killed)} at {step}"
                    assert not (wrong := serving(roost)), f"{what}: {wrong}"
                    if "supervisor" in killed:
                        await asyncio.to_thread(roost.start)
                    for victim, pid in killed.items():
                        await asyncio.to_thread(roost.wait_back, victim, pid)
                        hits[f"{victim} at {step}"] += 1
                        back += step == BACK
                        victims.back(victim)
                    print(f"{what}, back after {time.monotonic() - began:.1f} s")
                await asyncio.to_thread(versions.publish, good=True)
                await settle(roost, bus, versions.newest)
                before = len(talk.replies)
                await wait_for(lambda: enough(talk, before), 30, "all ask on")
            assert {reply.release for reply in talk.since(before)} == {versions.newest}
            found = faults(talk, await roost.turns(bus), versions.good, cut=True)
            assert not found, "\n".join(found)
            assert await roost.dead(bus) == 0
        assert not serving(roost)
        assert roost.litter() == []
        record = roost.record()
        assert record.swap is None
        unjust = {
            version: why for version, why in record.blocked.items()
            if version in versions.good and "died" not in why and why != ORDERED
        }  # fmt: skip
        assert not unjust, "good versions are blocked only by an order, and where workers died on them twice"
        print(f"{len(talk.replies)} answers, {versions.count} versions, blocked {record.blocked}, kills {dict(hits)}")
    except BaseException:
        print(f"failed with ROOST_TEST_SEED={SEED}\n{roost.record()}\n{roost.logs()}")
        raise
    finally:
        await asyncio.to_thread(roost.stop)


async def enough(talk: Any, before: int) -> bool:
    return len(talk.since(before)) >= 12
