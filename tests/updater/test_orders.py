"""Orders to an updater, its checks of the source, and its rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from bus import subjects
from bus.contract import Message
from bus.memory import MemoryBus, MemoryServer
from bus.stop import stop
from schemas.config import Config, ModelConfig
from schemas.errors import ConfigError, Disconnected, Untrusted
from schemas.update import UpdateOrder, UpdatesConfig, UpdateStatus, UpdateTold
from tests.bus.real import soon
from tests.simulation.clock import run
from tests.updater.site import BASE, SITE, House, house_in
from updater.check import Check
from updater.orders import Orders
from updater.part import Updater
from updater.report import Report
from updater.source import Missing
from updater.way import Way


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = await house_in(tmp_path)
    house.install("1", "2")
    yield house
    await house.close()


class SourceDouble:
    """A trusted source whose answers a test chooses: versions by name, or what is raised."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def refresh(self) -> SourceDouble:
        self.asked += 1
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self

    async def versions(self, name: str) -> tuple[str, ...]:
        if name not in self.answer:
            raise Missing(f"no {name}")
        return tuple(self.answer[name])


def check_of(house: House, source: SourceDouble, ways: dict[str, Way]) -> Check:
    def learned(name: str, versions: tuple[str, ...] | None, reason: str) -> None:
        ways[name].learn(versions, reason)

    bus = MemoryBus(house.server, BASE)
    return Check(bus, house.config, source, lambda: list(ways), learned)  # type: ignore[arg-type]


def orders_of(house: House, way: Way, source: SourceDouble) -> Orders:
    ways = {"talk": way}
    return Orders(house.bus, ways, check_of(house, source, ways), way._shared.report)


async def test_a_check_is_answered_when_the_source_has_and_the_row_knows_what_it_led_to(house: House) -> None:
    async with house.updater() as way:
        told = await orders_of(house, way, SourceDouble({"talk": "12"})).obey(UpdateOrder(do="check"))
        assert told.ok
        assert told.rows[0].version == "2"
        row = await house.row()
        assert row is not None
        assert row.phase != "idle"


async def test_a_check_of_a_source_that_is_away_or_lies_is_not_well_and_changes_nothing(house: House) -> None:
    source = SourceDouble(Disconnected("no route"))
    async with house.updater() as way:
        orders = orders_of(house, way, source)
        told = await orders.obey(UpdateOrder(do="check"))
        assert (told.ok, told.text) == (False, "the source cannot be asked: no route")
        source.answer = Untrusted("signed by nobody")
        for _ in range(3):
            assert "signed by nobody" in (await orders.obey(UpdateOrder(do="check"))).text
        assert (await house.alerts()).count("updates_untrusted") == 1
        source.answer = {}
        assert (await orders.obey(UpdateOrder(do="check"))).rows[0].reason == "the source has no model 'talk'"
        assert way.state.swap is None
    assert house.current == "1"


async def test_who_asks_during_a_check_gets_its_result(house: House) -> None:
    source = SourceDouble({"talk": "1"})
    source.gate.clear()
    async with house.updater() as way:
        orders = orders_of(house, way, source)
        asked = [asyncio.create_task(orders.obey(UpdateOrder(do="check"))) for _ in range(5)]
        await soon(lambda: source.asked == 1, "it is asked")
        source.gate.set()
        assert all(told.ok for told in await asyncio.gather(*asked))
    assert source.asked == 1


async def test_many_announcements_are_worth_one_check(house: House) -> None:
    source = SourceDouble({"talk": "1"})
    async with house.updater() as way:
        check = check_of(house, source, {"talk": way})
        running = asyncio.create_task(check.run())
        await soon(lambda: source.asked == 1, "the first check at the start")
        for _ in range(100):
            await check.hinted(Message("roost.event.release.published", b"{lies", "", {}))
        await soon(lambda: source.asked == 2, "one more")
        await stop(running)
    assert source.asked == 2


async def test_the_source_is_asked_again_by_itself_and_after_a_failure_too(house: House) -> None:
    house.config = replace(house.config, check_every_s=0.05)
    source = SourceDouble({"talk": "1"})
    async with house.updater() as way:
        check = check_of(house, source, {"talk": way})
        running = asyncio.create_task(check.run())
        await soon(lambda: source.asked >= 2, "a second check that nobody asked for")
        assert check.reason == ""

        source.answer = Disconnected("no route")
        await soon(lambda: "no route" in check.reason, "a check that failed")
        failed = source.asked
        await soon(lambda: source.asked > failed, "another try after it")

        source.answer = {"talk": "12"}
        await soon(lambda: check.reason == "" and way.versions == ("1", "2"), "the schedule finds what is new")
        await stop(running)


def test_a_failed_check_is_tried_again_soon_and_later_each_time_and_a_good_one_waits_for_the_schedule() -> None:
    """In virtual time: the shipped schedule is an hour."""
    at: list[float] = []
    enough = asyncio.Event()

    class Failing(SourceDouble):
        async def refresh(self) -> SourceDouble:
            at.append(asyncio.get_running_loop().time())
            self.answer = Disconnected("no route") if len(at) < 10 else {"talk": "1"}
            if len(at) == 12:
                enough.set()
            return await super().refresh()

    async def main() -> None:
        source, config = Failing({}), UpdatesConfig(source="here", root="root.json")
        bus = MemoryBus(MemoryServer(), BASE)
        check = Check(bus, config, source, lambda: ["talk"], lambda *found: None)  # type: ignore[arg-type]
        running = asyncio.create_task(check.run())
        await asyncio.wait_for(enough.wait(), 10 * config.check_every_s)
        await stop(running)

    run(main)
    waits = [round(after - before) for before, after in pairwise(at)]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300, 3600, 3600]


async def test_orders_that_cannot_be_carried_out_say_why(house: House) -> None:
    async with house.updater("1") as way:
        orders = orders_of(house, way, SourceDouble({}))

        async def refused(**order: Any) -> str:
            told = await orders.obey(UpdateOrder(**order))
            assert not told.ok
            return told.text

        assert "there are: talk" in await refused(do="pin", name="nobody")
        assert "say which" in await refused(do="rollback")
        assert "no earlier version" in await refused(do="rollback", name="talk")
        assert "neither on the disk" in await refused(do="pin", name="talk", version="9")
        assert "not blocked" in await refused(do="unblock", name="talk", version="9")
        assert "nothing waits" in await refused(do="apply", name="talk")
        assert "not pinned" in await refused(do="unpin", name="talk")
        nothing = Orders(house.bus, {}, check_of(house, SourceDouble({}), {}), way._shared.report)
        assert "no model has slots" in (await nothing.obey(UpdateOrder(do="pin", name="talk"))).text


async def test_an_order_over_the_bus_is_answered_even_when_it_cannot_be_read(house: House) -> None:
    async with house.updater("1") as way:
        orders = orders_of(house, way, SourceDouble({}))
        await house.bus.subscribe(subjects.updater(SITE), orders.answer)
        for data, ok in (
            (b"{no json", False),
            (b'{"do": "explode"}', False),
            (b'{"do": "history", "name": "talk"}', True),
        ):
            told = msgspec.json.decode(await house.bus.request(subjects.updater(SITE), data, 5), type=UpdateTold)
            assert told.ok == ok
        assert told.versions == ("1", "2")


async def test_the_row_knows_of_an_order_before_it_is_answered(house: House) -> None:
    async with house.updater() as way:
        orders = orders_of(house, way, SourceDouble({}))
        told = await orders.obey(UpdateOrder(do="rollback", name="talk", version="2"))
        row = await house.row()
        assert row is not None
        assert told.rows[0].phase == row.phase == "rolling_back"


async def test_progress_is_written_once_a_second_and_a_phase_at_once(house: House) -> None:
    bus = MemoryBus(house.server, BASE)
    report = Report(bus, SITE)
    running = asyncio.create_task(report.run())
    row = UpdateStatus(name="talk", site=SITE, phase="fetching", at=0.0, size=1_000)
    began = asyncio.get_running_loop().time()
    stored = house.server.streams["KV_UPDATES"]
    for done in range(1_000):
        report.show(msgspec.structs.replace(row, done=done))
        await asyncio.sleep(0)
    assert stored.last_seq <= 2 + (asyncio.get_running_loop().time() - began)
    report.show(msgspec.structs.replace(row, phase="loading"))
    await house.shows("loading")
    assert asyncio.get_running_loop().time() - began < 1.0
    report.drop("talk")

    async def gone() -> bool:
        return await house.row() is None

    await soon(gone, "its row is taken away")
    await stop(running)


async def test_two_folders_of_one_name_are_no_reason_to_stop(house: House) -> None:
    async with house.updater("1") as way, asyncio.TaskGroup() as tasks:
        updater = Updater(way._shared, tasks)
        models = [ModelConfig(name=n, type="echo", path=f"/nowhere/{n}/talk/current") for n in ("a", "b")]
        with pytest.raises(ConfigError, match="share a name"):
            await updater.apply(Config(models=tuple(models)))
        assert updater.ways == {}
