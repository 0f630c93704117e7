"""A site for tests of swaps: a bus in memory, workers that keep the contract of orders or break it, a slot on disk."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from bus import streams, subjects
from bus.contract import Message
from bus.memory import MemoryBus, MemoryServer
from bus.stop import stop
from schemas.config import Config, ModelConfig
from schemas.event import Alert
from schemas.model import GoldenAnswer, ModelEvent, ModelOrder, ModelStatus, ModelTold, WorkerStatus
from schemas.release import Chunk, Expected, Golden, Release, ReleaseFile
from schemas.update import RolloutConfig, UpdatesConfig, UpdateStatus
from tests.bus.real import config_of, soon
from updater.report import Report
from updater.shared import Shared
from updater.slots import Slot
from updater.store import Store
from updater.way import Way
from updater.workers import Workers

SITE = "here-abc"
BASE = config_of()
GOLDEN = Golden(prompt="capital?", expect=Expected(contains=("Paris",)))


class WorkerDouble:
    """One worker with the model `talk`. `how` says what becomes of a version (`ok` by default) when it is staged:
    `bad_model`, `no_memory`, `unavailable`, `garbage`, `hang`, `die`, `fails_look`.
    """

    pids = itertools.count(1000)

    def __init__(self, server: MemoryServer, folder: Path, number: int = 0, how: dict[str, str] | None = None) -> None:
        self.id = f"{SITE}-{number}"
        self.folder = folder
        self.how = how if how is not None else {}
        self.orders: list[ModelOrder] = []
        self.staged = ""
        self.serves: list[str] = []
        """Every version that it has served, in order; the last one does now."""
        self.shared = (0, 0)
        self.pid = next(self.pids)
        self.bus = MemoryBus(server, BASE)
        self._row: asyncio.Task[None] | None = None
        self._server = server

    async def start(self) -> None:
        await self.bus.subscribe(subjects.models(self.id), self._ordered)
        for what in ("swapped", "rolled_back"):
            await self.bus.subscribe(subjects.model_events(what), self._heard)
        self._look()
        await self._tell()
        self._row = asyncio.create_task(self._rows())

    async def _rows(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            await self._tell()

    async def _tell(self) -> None:
        me = WorkerStatus(
            id=self.id,
            host="here",
            pid=self.pid,
            started_at=float(self.pid),
            seen_at=asyncio.get_running_loop().time(),
            models=("talk",),
        )
        row = ModelStatus(
            name="talk", type="echo", worker=self.id, state="ready", version=self.serves[-1], candidate=self.staged
        )
        await self.bus.table("WORKERS").put(self.id, msgspec.json.encode(me))
        await self.bus.table("MODELS").put(f"talk.{self.id}", msgspec.json.encode(row))

    async def die(self, *, again: bool = True) -> None:
        """As by `kill -9`; the supervisor starts another in its place."""
        self.bus.cut()
        if self._row is not None:
            await stop(self._row)
        self.staged, self.shared = "", (0, 0)
        if again:
            self.bus, self.pid = MemoryBus(self._server, BASE), next(self.pids)
            await self.start()

    def _look(self) -> None:
        link = self.folder / "current"
        version = link.resolve().name if link.exists() else "none"
        if not self.serves or self.serves[-1] != version:
            self.serves.append(version)
        if self.staged == version:
            self.staged = ""

    async def _heard(self, message: Message) -> None:
        assert msgspec.json.decode(message.data, type=ModelEvent).model == "talk"
        self._look()

    async def _ordered(self, message: Message) -> None:
        order = msgspec.json.decode(message.data, type=ModelOrder)
        self.orders.append(order)
        version = Path(order.path).name
        how = self.how.get(version, "ok") if order.do == "stage" else "ok"
        if order.do == "look" and self.how.get((self.folder / "current").resolve().name) == "fails_look":
            how = "bad_model"
        if how == "no_memory" and order.in_place:
            how = "ok"
        if how == "hang":
            return
        if how == "die":
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self.die()))
            return
        answers: tuple[GoldenAnswer, ...] = ()
        if how in ("ok", "garbage") and order.do == "stage":
            self.staged = version
            answers = tuple(GoldenAnswer(text="Paris" if how == "ok" else "xx xx") for _ in order.goldens)
        if order.do == "unstage":
            self.staged, self.shared = "", (0, 0)
        if order.do == "share":
            self.shared = (order.canary, order.shadow)
        if order.do == "look":
            self._look()
        ok = how in ("ok", "garbage")
        told = ModelTold(
            model=order.model, worker=self.id, text=how, ok=ok, code="" if ok else "bad_model" if how == "fails_look"
            else how, version=version, answers=answers, seconds={"load": 0.1} if order.do == "stage" else {},
        )  # fmt: skip
        await self.bus.send(message.reply, msgspec.json.encode([told]))

    def did(self, what: str) -> list[str]:
        """Versions that it was ordered to do something with."""
        return [Path(order.path).name for order in self.orders if order.do == what]


class House:
    """One slot `talk`, its updater's life, and its workers."""

    def __init__(self, folder: Path) -> None:
        self.server = MemoryServer()
        self.bus = MemoryBus(self.server, BASE)
        self.slot = Slot(name="talk", folder=folder / "talk", models=("talk",), rollout=RolloutConfig(watch_s=0.3))
        self.store = Store(self.slot.folder)
        self.workers: list[WorkerDouble] = []
        self.way: Way | None = None
        self.config = UpdatesConfig(source="bus", root="root.json", load_s=20.0, keep=9)

    def install(self, *versions: str) -> None:
        """Whole releases on the disk; the first one serves."""
        for i, version in enumerate(versions):
            release = release_of(version, i)
            folder = self.store.incoming(release)
            (folder / "model.txt").write_bytes(b"x" * 8)
            self.store.finish(release)
        self.store.point("current", versions[0])

    async def worker(self, number: int = 0, **how: str) -> WorkerDouble:
        """`v3="bad_model"`: what it says to version 3."""
        said = {version.removeprefix("v"): what for version, what in how.items()}
        worker = WorkerDouble(self.server, self.slot.folder, number, said)
        await worker.start()
        self.workers.append(worker)
        return worker

    @contextlib.asynccontextmanager
    async def updater(self, *versions: str, **rollout: Any) -> AsyncIterator[Way]:
        """One life of the slot's updater, told that the source has `versions`; at the end it is killed."""
        if rollout:
            self.slot = msgspec.structs.replace(self.slot, rollout=RolloutConfig(**{"watch_s": 0.3, **rollout}))
        bus = MemoryBus(self.server, BASE)
        report = Report(bus, SITE)
        shared = Shared(self.config, None, Workers(bus, SITE), report)  # type: ignore[arg-type]  # nothing is fetched
        way = self.way = Way(self.slot, shared)
        way.learn(versions, "")
        tasks = [asyncio.create_task(way.run()), asyncio.create_task(report.run())]
        try:
            await way.open.wait()
            yield way
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            bus.cut()
            await stop(*tasks)

    @property
    def current(self) -> str:
        return self.store.current()

    async def rests(self, current: str, timeout_s: float = 10.0) -> None:
        """Wait until nothing is under way, and `current` serves."""
        await soon(
            lambda: self.way is not None and self.way.state.swap is None and self.current == current,
            f"{current} serves and all is settled",
            timeout_s,
        )

    async def model_events(self) -> list[ModelEvent]:
        found = self.bus.read("EVENTS", "roost.event.model.>")
        return [msgspec.json.decode(m.data, type=ModelEvent) async for m in found]

    async def events(self) -> list[tuple[str, str]]:
        return [(event.what, event.version) for event in await self.model_events()]

    async def alerts(self) -> list[str]:
        found = self.bus.read("EVENTS", "roost.event.alert.>")
        return [msgspec.json.decode(m.data, type=Alert).code async for m in found]

    async def alerted(self, code: str) -> None:
        async def there() -> bool:
            return code in await self.alerts()

        await soon(there, f"the alert {code}")

    async def told(self, what: str, version: str) -> None:
        """Wait for an event."""

        async def there() -> bool:
            return (what, version) in await self.events()

        await soon(there, f"the event {what} {version}")

    async def row(self) -> UpdateStatus | None:
        data = await self.bus.table("UPDATES").get(f"talk.{SITE}")
        return msgspec.json.decode(data, type=UpdateStatus) if data else None

    async def shows(self, phase: str, reason: str = "") -> UpdateStatus:
        async def look() -> UpdateStatus | None:
            row = await self.row()
            return row if row is not None and row.phase == phase and reason in row.reason else None

        found: UpdateStatus = await soon(look, f"the row says {phase} {reason}")
        return found

    async def close(self) -> None:
        for worker in self.workers:
            await worker.die(again=False)
        await self.bus.close()


def release_of(version: str, sequence: int) -> Release:
    file = ReleaseFile(path="model.txt", size=8, sha256="0" * 64, chunks=(Chunk("0" * 64, 8),))
    return Release(name="talk", version=version, files=(file,), created_at=1.0, sequence=sequence, goldens=(GOLDEN,))


def config_with(folder: Path, **updates: Any) -> Config:
    """One model whose path is a slot."""
    model = ModelConfig(name="talk", type="echo", path=str(folder / "talk" / "current"))
    return msgspec.structs.replace(BASE, models=(model,), updates=UpdatesConfig(**updates))


async def house_in(folder: Path) -> House:
    house = House(folder)
    await streams.apply(house.bus, BASE)
    return house
