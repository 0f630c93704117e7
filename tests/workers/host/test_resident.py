"""One model that comes and goes while it is used: on real lanes with the echo backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from schemas.errors import RoostError
from schemas.message import Message
from tests.bus.real import soon
from workers import Job
from workers.echo import EchoBackend
from workers.host.lane import Lane
from workers.host.resident import Gone, Resident, Withdrawn


class House:
    """A resident, and how many of its lanes were closed."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.tasks = tasks
        self.resident = Resident("echo", tasks, wait_s=30)
        self.closed: list[str] = []

    async def lane(self, slots: int = 2, delay_ms: float = 0.0) -> Lane:
        lane = Lane("echo", EchoBackend(EchoBackend.Settings(delay_ms=delay_ms), slots))
        await lane.load(None)
        return lane

    def serve(self, lane: Lane, name: str = "lane") -> None:
        async def freed() -> None:
            self.closed.append(name)

        self.resident.replace(lane, freed)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with asyncio.TaskGroup() as tasks:
        house = House(tasks)
        yield house
        house.resident.unload()
        await house.resident.settle()


class User:
    """Somebody who holds the model until told to leave."""

    def __init__(self, house: House, request: str = "", resident: Resident | None = None) -> None:
        self.lane: Lane | None = None
        self.error: Exception | None = None
        self.leave = asyncio.Event()
        self.task = house.tasks.create_task(self._use(resident or house.resident, request))

    async def _use(self, resident: Resident, request: str) -> None:
        try:
            async with resident.use(request) as self.lane:
                await self.leave.wait()
        except (RoostError, Withdrawn) as error:
            self.error = error

    async def seated(self) -> Lane:
        await soon(lambda: self.lane is not None, "it has a lane")
        assert self.lane is not None
        return self.lane

    async def go(self) -> None:
        self.leave.set()
        await self.task


async def words(lane: Lane, text: str) -> str:
    return "".join([p.text async for p in lane.run(Job(request=text, messages=(Message("user", text),)))])


async def test_whoever_comes_while_it_is_asleep_waits_and_is_served(house: House) -> None:
    assert house.resident.state == "asleep"
    user = User(house)
    await soon(lambda: house.resident.wanted, "it is wanted")
    house.serve(await house.lane())
    assert house.resident.state == "ready"
    assert await words(await user.seated(), "good morning") == "good morning"
    await user.go()
    assert house.resident.idle


async def test_as_many_as_there_are_slots_use_it_at_once_in_the_order_of_coming(house: House) -> None:
    house.serve(await house.lane(slots=2))
    users = [User(house) for _ in range(4)]
    await users[1].seated()
    await soon(lambda: house.resident.waiting == 2, "two wait")
    assert users[2].lane is users[3].lane is None
    await users[0].go()
    await users[2].seated()
    assert users[3].lane is None
    await users[1].go()
    await users[3].seated()
    await users[2].go()
    await users[3].go()


async def test_new_requests_go_to_the_new_lane_and_the_old_one_ends_with_its_last_user(house: House) -> None:
    old, new = await house.lane(slots=1), await house.lane(slots=1)
    house.serve(old, "old")
    running, waiting = User(house), User(house)
    assert await running.seated() is old
    house.serve(new, "new")
    assert await waiting.seated() is new
    assert house.resident.busy == 2
    assert house.closed == []
    assert await words(old, "still here") == "still here"
    await running.go()
    await soon(lambda: house.closed == ["old"], "the old lane is freed")
    assert await words(new, "and so am I") == "and so am I"
    await waiting.go()


async def test_no_lane_is_closed_under_a_user_and_whoever_comes_meanwhile_waits(house: House) -> None:
    house.serve(await house.lane())
    running = User(house)
    lane = await running.seated()
    unloading = house.tasks.create_task(_wait(house.resident))
    await soon(lambda: house.resident.state == "unloading", "it is unloading")
    late = User(house)
    await soon(lambda: house.resident.wanted, "it is wanted")
    assert await words(lane, "not yet") == "not yet"
    await running.go()
    await unloading
    assert house.closed == ["lane"]
    assert late.lane is None
    house.serve(await house.lane())
    await late.seated()
    await late.go()


async def _wait(resident: Resident) -> None:
    await resident.unload()


async def test_an_impatient_caller_does_not_stop_the_unloading(house: House) -> None:
    house.serve(await house.lane())
    running = User(house)
    await running.seated()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await house.resident.unload()
    await running.go()
    await soon(lambda: house.closed == ["lane"], "it is freed all the same")


async def test_a_job_that_is_cancelled_while_it_waits_is_withdrawn(house: House) -> None:
    user = User(house, "r1")
    await soon(lambda: house.resident.wanted, "it waits")
    house.resident.cancel("another")
    house.resident.cancel("r1")
    await soon(user.task.done, "it is told")
    assert isinstance(user.error, Withdrawn)


async def test_a_user_that_is_cancelled_with_the_seat_in_hand_gives_it_back(house: House) -> None:
    house.serve(await house.lane(slots=1))
    first, second = User(house), User(house)
    await first.seated()
    await soon(lambda: house.resident.waiting == 1, "the second waits")
    first.leave.set()
    await soon(lambda: house.resident.waiting == 0, "the seat is handed on")
    second.task.cancel()
    await asyncio.wait({first.task, second.task})
    assert house.resident.idle


async def test_nobody_waits_for_ever_for_a_model_that_is_not_loaded(house: House) -> None:
    house.resident = Resident("echo", house.tasks, wait_s=0.05)
    user = User(house)
    await soon(user.task.done, "it gives up")
    assert str(user.error) == "echo was not loaded within 0 s"


async def test_a_refusal_reaches_those_who_wait_and_those_who_come_until_it_is_taken_back(house: House) -> None:
    waiting = User(house)
    await soon(lambda: house.resident.wanted, "it waits")
    house.resident.refuse(RoostError("it is gone", code="model_removed"))
    coming = User(house)
    for user in (waiting, coming):
        await soon(user.task.done, "it is told")
        assert str(user.error) == "it is gone"
    house.serve(await house.lane())
    later = User(house)
    await later.seated()
    await later.go()


async def test_while_it_rests_it_becomes_idle_though_others_wait(house: House) -> None:
    house.serve(await house.lane(slots=1))
    first = User(house)
    await first.seated()
    with house.resident.rest():
        second = User(house)
        await soon(lambda: house.resident.waiting == 1, "it waits")
        await first.go()
        assert house.resident.idle
    await second.seated()
    await second.go()


async def test_tokens_are_counted_and_the_pace_is_a_moving_average(house: House) -> None:
    resident = house.resident
    resident.count(100, 2.0)
    assert resident.tokens_per_s == pytest.approx(50)
    resident.count(100, 1.0)
    assert 50 < resident.tokens_per_s < 75
    resident.count(500, 0.001)
    assert resident.tokens_per_s < 75
    assert resident.tokens == 700


async def test_a_lane_is_taken_over_with_its_users_and_its_free_slots(house: House) -> None:
    beside = Resident("echo", house.tasks, wait_s=30)
    old, new = await house.lane(slots=1), await house.lane(slots=1)
    house.serve(old, "old")
    beside.replace(new)
    on_old, guest = User(house), User(house, resident=beside)
    assert await guest.seated() is new
    assert await on_old.seated() is old
    late = User(house, resident=beside)
    await soon(lambda: beside.waiting == 1, "one waits beside")
    waiting = User(house)
    await soon(lambda: house.resident.waiting == 1, "one waits here")
    house.resident.take_over(beside)
    await soon(late.task.done, "it is told")
    assert isinstance(late.error, Gone)
    assert beside.lane is None
    assert waiting.lane is None, "the new lane has no free slot yet"
    await guest.go()
    assert await waiting.seated() is new
    assert house.closed == []
    await on_old.go()
    await soon(lambda: house.closed == ["old"], "the old lane is freed")
    await waiting.go()
