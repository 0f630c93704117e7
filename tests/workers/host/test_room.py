"""Making room for models, with real lanes on a machine whose size is made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bus.stop import stop
from schemas.config import ModelConfig, WorkerConfig
from tests.bus.real import soon
from workers import Demand
from workers.echo import EchoBackend
from workers.host.budget import Memory
from workers.host.lane import Lane
from workers.host.resident import Resident
from workers.host.room import Grant, NoRoom, Room


class House:
    """A worker's memory of 100 bytes, all of them free, and models that want some."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.tasks = tasks
        self.memory = Memory(whole=100, free=1000)
        self.room = Room(WorkerConfig(memory="100%"), lambda: self.memory, turn_s=0.05)
        self.residents: dict[str, Resident] = {}

    def resident(self, name: str) -> Resident:
        if name not in self.residents:
            self.residents[name] = Resident(name, self.tasks, changed=self.room.poke)
        return self.residents[name]

    async def take(
        self, name: str, size: int, *, evict: bool = True, wait_s: float = 5.0, model: ModelConfig | None = None
    ) -> Grant:
        """What loading does: memory first, then the lane, which then serves."""
        lane = Lane(name, EchoBackend(EchoBackend.Settings()))
        resident = self.resident(name)
        try:
            grant = await self.room.take(
                resident,
                model or ModelConfig(name=name, type="echo"),
                lane,
                Demand(weights=size),
                evict=evict,
                wait_s=wait_s,
            )
        except NoRoom:
            await lane.close()
            raise
        await lane.load(None)
        grant.loaded(0.0)

        async def freed() -> None:
            grant.give_back()

        resident.replace(lane, freed)
        return grant

    def state(self, name: str) -> str:
        return self.residents[name].state


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with asyncio.TaskGroup() as tasks:
        house = House(tasks)
        yield house
        for resident in house.residents.values():
            await resident.unload()


async def test_an_idle_model_makes_way_and_its_memory_is_counted_until_it_is_freed(house: House) -> None:
    await house.take("a", 60)
    await house.take("b", 60)
    assert (house.state("a"), house.state("b")) == ("asleep", "ready")
    await house.take("c", 40)
    assert (house.state("b"), house.state("c")) == ("ready", "ready")


async def test_what_nobody_asked_for_takes_only_what_is_free(house: House) -> None:
    await house.take("a", 60)
    with pytest.raises(NoRoom) as refused:
        await house.take("b", 60, evict=False)
    assert not refused.value.never
    assert house.state("a") == "ready"


async def test_what_can_never_fit_is_refused_at_once_with_figures(house: House) -> None:
    await house.take("a", 60)
    with pytest.raises(NoRoom, match=r"budget 0\.0 MB, of which 0\.0 are in use by a") as refused:
        await house.take("b", 101)
    assert refused.value.never
    assert house.state("a") == "ready"


async def test_a_models_own_limit_is_named(house: House) -> None:
    model = ModelConfig(name="a", type="echo", memory="50%")
    assert house.room.limit(model) == 50
    with pytest.raises(NoRoom, match=r"models\[\]\.memory is 50%") as refused:
        await house.take("a", 60, model=model)
    assert refused.value.never


async def test_a_busy_model_is_waited_for_and_gets_no_new_users_when_its_turn_is_over(
    house: House,
) -> None:
    await house.take("a", 60)
    leave, second = asyncio.Event(), asyncio.Event()

    async def use(event: asyncio.Event) -> None:
        async with house.resident("a").use():
            event.set()
            await leave.wait()

    first = asyncio.Event()
    house.tasks.create_task(use(first))
    await first.wait()
    taking = house.tasks.create_task(house.take("b", 60))
    await soon(lambda: house.resident("a").resting, "its turn is over")
    late = house.tasks.create_task(use(second))
    await soon(lambda: house.resident("a").waiting, "a new user waits")
    assert not taking.done()
    leave.set()
    await taking
    assert (house.state("a"), house.state("b")) == ("asleep", "ready")
    assert not second.is_set()
    await house.take("a", 60)
    await late


async def test_a_busy_model_is_waited_for_only_so_long(house: House) -> None:
    await house.take("a", 60)
    async with house.resident("a").use():
        with pytest.raises(NoRoom, match=r"in use by a \(busy\)") as refused:
            await house.take("b", 60, wait_s=0.1)
        assert not refused.value.never
    async with house.resident("a").use():
        assert house.state("a") == "ready"


async def test_memory_that_other_programs_take_counts(house: House) -> None:
    house.memory = Memory(whole=100, free=30)
    with pytest.raises(NoRoom, match="of memory are free now"):
        await house.take("a", 60, wait_s=0.1)
    await house.take("b", 30)


async def test_what_is_being_loaded_is_counted_though_it_has_taken_nothing_yet(house: House) -> None:
    house.memory = Memory(whole=100, free=50)
    lane = Lane("a", EchoBackend(EchoBackend.Settings()))
    model = ModelConfig(name="a", type="echo")
    promised = await house.room.take(house.resident("a"), model, lane, Demand(weights=40), evict=True, wait_s=1)
    with pytest.raises(NoRoom, match=r"in use by a \(busy\)"):
        await house.take("b", 20, wait_s=0.05)
    promised.give_back()
    await lane.close()
    await house.take("b", 20)


async def test_a_smaller_budget_unloads_idle_models(house: House) -> None:
    await house.take("a", 40)
    await house.take("b", 40)
    house.room.config = WorkerConfig(memory="50%")
    await house.room.shrink(5)
    assert sorted(r.state for r in house.residents.values()) == ["asleep", "ready"]


async def test_two_that_want_the_same_memory_have_it_in_turn_however_busy_they_are(house: House) -> None:
    served: list[str] = []

    async def load(name: str) -> None:
        """As a worker does: load it whenever somebody waits for it."""
        while True:
            await soon(lambda: house.resident(name).wanted, f"{name} is wanted", 60)
            await house.take(name, 60, wait_s=20)

    async def ask(name: str) -> None:
        for _ in range(8):
            async with house.resident(name).use():
                served.append(name)
                await asyncio.sleep(0.02)

    loading = [house.tasks.create_task(load(name)) for name in "ab"]
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for name in "ab":
            for _ in range(4):
                tasks.create_task(ask(name))
    await stop(*loading)
    assert sorted(served) == ["a"] * 32 + ["b"] * 32
    turns = [name for i, name in enumerate(served) if i == 0 or served[i - 1] != name]
    assert 2 <= len(turns) <= 24
