"""The updater as a process: `roost run updater`, one for each data folder; only where `updates` is configured."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import msgspec

from bus import site, streams, subjects
from bus.contract import Message
from bus.part import Part, run
from bus.stop import stop
from schemas.config import Config
from schemas.errors import ConfigError
from schemas.update import UpdateTold
from updater.check import Check
from updater.orders import Orders
from updater.report import Report
from updater.shared import Shared
from updater.slots import slots_of
from updater.source import source_of
from updater.trusted import Trusted
from updater.way import Way
from updater.workers import Workers

log = logging.getLogger("roost.updater")

NICE = 10
"""A tenth of a core beside answers that are given on all of them, and all of it beside none."""
ORDERS_MAX = 32
"""Orders in hand at once; more are told to come back."""


class Updater:
    """The slots of one site, as the newest configuration has them."""

    def __init__(self, shared: Shared, tasks: asyncio.TaskGroup) -> None:
        self.ways: dict[str, Way] = {}
        self._shared = shared
        self._tasks = tasks
        self._running: dict[str, asyncio.Task[None]] = {}

    async def apply(self, config: Config) -> None:
        """Begin with new slots, end removed ones, and have the others know; raises `ConfigError`, changing nothing."""
        wanted = slots_of(config)
        for name in [n for n, way in self.ways.items() if n not in wanted or wanted[n].folder != way.slot.folder]:
            await stop(self._running.pop(name))
            del self.ways[name]
            self._shared.report.drop(name)
        for name, slot in wanted.items():
            if (way := self.ways.get(name)) is not None:
                way.use(slot)
            else:
                way = self.ways[name] = Way(slot, self._shared)
                self._running[name] = self._tasks.create_task(way.run())
                if self._shared.check is not None:
                    self._shared.check.soon()

    async def close(self) -> None:
        await stop(*self._running.values())


async def _body(part: Part) -> None:
    updates = part.config.updates
    if updates is None:
        raise ConfigError("the configuration has no `updates:`; the updater has nothing to do")
    await streams.apply(part.bus, part.config)
    here = site.site(part.data)
    source = source_of(updates, part.bus)
    report = Report(part.bus, here)
    shared = Shared(updates, source, Workers(part.bus, here), report)
    trusted = Trusted(source, Path(updates.root), part.data / "updates" / "trusted")
    try:
        async with asyncio.TaskGroup() as tasks:
            updater = Updater(shared, tasks)

            def learned(name: str, versions: tuple[str, ...] | None, reason: str) -> None:
                if name in updater.ways:
                    updater.ways[name].learn(versions, reason)

            check = shared.check = Check(part.bus, updates, trusted, lambda: list(updater.ways), learned)
            orders = Orders(part.bus, updater.ways, check, report)
            in_hand: set[asyncio.Task[None]] = set()

            async def ordered(message: Message) -> None:
                if len(in_hand) >= ORDERS_MAX:
                    busy = UpdateTold(ok=False, text="the updater has too many orders in hand; try again")
                    await part.bus.send(message.reply, msgspec.json.encode(busy))
                    return
                task = tasks.create_task(orders.answer(message))
                in_hand.add(task)
                task.add_done_callback(in_hand.discard)

            async def follow() -> None:
                while True:
                    config = await part.reloaded()
                    try:
                        await updater.apply(config)
                    except ConfigError as error:
                        await part.bus.alert("updates_config", error.message, part="updater")

            await updater.apply(part.config)
            heard = await part.bus.subscribe(subjects.event("release", "published"), check.hinted)
            obeyed = await part.bus.subscribe(subjects.updater(here), ordered)
            others = [tasks.create_task(work) for work in (report.run(), check.run(), follow())]
            part.ready()
            await part.stopping.wait()
            await obeyed.close()
            await heard.close()
            await updater.close()
            await stop(*others, *in_hand)
        await report.goodbye()
    finally:
        await source.close()


def main(config: Config, data: Path) -> int:
    os.nice(NICE)  # all of it may wait
    return run("updater", config, data, _body)
