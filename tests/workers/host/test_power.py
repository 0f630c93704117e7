"""How a worker eases its backends, over a bus in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from bus import streams, subjects
from bus.contract import Message
from bus.memory import MemoryBus, MemoryServer
from schemas.power import Level, PowerStatus
from tests.bus.real import config_of, soon
from workers import Backend, BackendSettings, Finished, Job
from workers.host import power
from workers.host.power import SHARES, Easing


class Eased(Backend):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__(BackendSettings())
        self.told: list[float] = []

    def ease(self, level: float) -> None:
        self.told.append(level)

    def generate(self, job: Job) -> Iterator[str | Finished]:
        yield job.text


class Broken(Eased):
    def ease(self, level: float) -> None:
        raise RuntimeError("no")


class World:
    """One worker with one backend, and the bus that it hears of its machine on."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.backends: list[Eased] = [Broken(), Eased()]
        self.busy = 0
        self.wakes: list[str] = []
        self.easing = Easing(bus, "laptop", lambda: self.backends, lambda: self.busy)

    @property
    def share(self) -> float | None:
        return self.backends[1].told[-1] if self.backends[1].told else None

    async def row(self, level: Level, under_load: Level) -> None:
        row = PowerStatus(host="laptop", profile="balanced", level=level, under_load=under_load, seen_at=0)
        await self.bus.table("POWER").put("laptop", msgspec.json.encode(row))

    async def woken(self, message: Message) -> None:
        self.wakes.append(message.subject)


@asynccontextmanager
async def world(**rows: Level) -> AsyncIterator[World]:
    bus = MemoryBus(MemoryServer(), config_of())
    await streams.apply(bus, bus.config)
    made = World(bus)
    await bus.subscribe(subjects.wake("laptop"), made.woken)
    if rows:
        await made.row(**rows)
    running = asyncio.create_task(made.easing.run())
    try:
        await soon(lambda: made.share is not None, "the first look")
        yield made
    finally:
        running.cancel()
        await asyncio.wait({running})
        await bus.close()


@pytest.mark.parametrize("level", ["low", "normal", "full"])
async def test_a_resting_worker_goes_by_its_machine(level: Level) -> None:
    async with world(level=level, under_load="full") as made:
        assert made.share == SHARES[level]


async def test_without_a_power_part_the_whole_machine_is_used() -> None:
    async with world() as made:
        assert made.share == 1.0
        made.easing.work()
        await asyncio.sleep(0)
        assert made.wakes == []


@pytest.mark.parametrize(("under_load", "share"), [("full", 1.0), ("normal", SHARES["normal"])])
async def test_the_first_job_raises_before_anybody_is_asked_and_wakes_the_power_part_once(
    under_load: Level, share: float
) -> None:
    async with world(level="low", under_load=under_load) as made:
        made.easing.work()
        assert made.share == share, "at once"
        made.easing.work()
        await soon(lambda: made.wakes, "the power part is woken")
        made.easing.work()
        assert made.wakes == [subjects.wake("laptop")]


async def test_a_saving_machine_stays_low_under_load() -> None:
    async with world(level="low", under_load="low") as made:
        made.easing.work()
        await asyncio.sleep(0.05)
        assert made.share == SHARES["low"]
        assert made.wakes == []


async def test_while_it_works_it_stays_up_and_after_it_falls_again() -> None:
    async with world(level="low", under_load="full") as made:
        made.busy = 1
        made.easing.work()
        looks = len(made.backends[1].told)
        await soon(lambda: len(made.backends[1].told) > looks, "the next look", power.REFRESH_S + 5)
        assert made.share == 1.0
        made.busy = 0
        await soon(lambda: made.share == SHARES["low"], "it rests", power.REFRESH_S + 5)


async def test_a_bus_that_is_away_or_a_row_that_cannot_be_read_leaves_the_whole_machine() -> None:
    async with world(level="low", under_load="low") as made:
        await made.bus.table("POWER").put("laptop", b"rubbish")
        await soon(lambda: made.share == 1.0, "a row that says nothing", power.REFRESH_S + 5)


async def test_a_backend_that_is_loaded_later_is_told_too() -> None:
    async with world(level="low", under_load="full") as made:
        late = Eased()
        made.backends.append(late)
        await soon(lambda: late.told == [SHARES["low"]], "it is told", power.REFRESH_S + 5)


def test_a_backend_need_not_know_of_it() -> None:
    class Least(Backend):
        def generate(self, job: Job) -> Iterator[str | Finished]:
            yield job.text

    Least(BackendSettings()).ease(0.5)
