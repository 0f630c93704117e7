"""A worker's models over the bus in memory, on real lanes: what the tests of updates and of models share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from bus import streams, subjects
from bus.memory import MemoryBus, MemoryServer
from bus.memory_sessions import MemorySessions, MemoryStore
from schemas.config import Config, ModelConfig, WorkerConfig
from schemas.message import Inbound, Outbound, Sender
from schemas.model import ModelEvent, ModelOrder, ModelStatus, ModelTold
from schemas.turn import Turn
from tests.bus.real import config_of, soon
from tests.tools import brittle
from workers.host.models import Models
from workers.host.nudges import Nudges

BASE = config_of(ack_wait_s=0.6, drain_s=5.0)


def echo(name: str, **more: Any) -> ModelConfig:
    fields = {k: more.pop(k) for k in list(more) if k in ModelConfig.__struct_fields__}
    return ModelConfig(name=name, type="echo", settings=more, **fields)


def config(*models: ModelConfig, memory: str = "100 GB", **worker: Any) -> Config:
    return replace(BASE, models=models, worker=WorkerConfig(memory=memory, overcommit=True, **worker))


class House:
    """A bus, sessions, and workers that come and go on them."""

    def __init__(self, data: Path) -> None:
        self.server, self.store = MemoryServer(), MemoryStore()
        self.bus = MemoryBus(self.server, BASE)
        self.data = data
        (data / "run").mkdir()

    @contextlib.asynccontextmanager
    async def worker(self, config: Config, name: str = "here-0", bus: MemoryBus | None = None) -> AsyncIterator[Models]:
        bus = bus or MemoryBus(self.server, config)
        models = Models(bus, MemorySessions(self.store), config, name, self.data)
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(models.serve(stopping))
            await models.settled.wait()
            nudges = Nudges(bus, models, tasks)
            await nudges.open()
            yield models
            await nudges.close()
            stopping.set()
            await serving
        await bus.close()

    async def ask(self, id_: str, model: str, text: str = "", conversation: str = "", **more: Any) -> None:
        conversation = conversation or f"c-{id_}"
        inbound = Inbound(
            id=id_,
            conversation=conversation,
            sender=Sender("ann"),
            text=text or id_,
            channel="chat",
            model=model,
            **more,
        )
        subject = subjects.inbox(model, "chat", conversation)
        await self.bus.publish(subject, msgspec.json.encode(inbound), id=id_)

    async def reply(self, id_: str, conversation: str = "") -> Outbound:
        async def found() -> list[Outbound]:
            subject = f"roost.out.chat.{conversation or f'c-{id_}'}"
            stored = [m.data async for m in self.bus.read("OUTBOX", subject)]
            replies = [msgspec.json.decode(data, type=Outbound) for data in stored]
            return [reply for reply in replies if reply.id == id_]

        found_one: Outbound = (await soon(found, f"a reply to {id_}", 20.0))[0]
        return found_one

    async def answered(self, id_: str, model: str, text: str = "", conversation: str = "", **more: Any) -> Outbound:
        await self.ask(id_, model, text, conversation, **more)
        return await self.reply(id_, conversation)

    async def turns(self) -> list[Turn]:
        return [msgspec.json.decode(m.data, type=Turn) async for m in self.bus.read("TURNS", "roost.turn.>")]

    async def flipped(self, model: str, what: Any = "swapped") -> None:
        """Publish what the updater publishes after it has changed the link."""
        await self.bus.event("model", model, what, body=ModelEvent(model=model, what=what, at=0.0))

    async def row(self, model: str, worker: str = "here-0") -> ModelStatus | None:
        data = await self.bus.table("MODELS").get(f"{model}.{worker}")
        return msgspec.json.decode(data, type=ModelStatus) if data else None

    async def shows(self, model: str, **facts: Any) -> ModelStatus:
        async def look() -> ModelStatus | None:
            row = await self.row(model)
            return row if row and all(getattr(row, k) == v for k, v in facts.items()) else None

        found: ModelStatus = await soon(look, f"{model} is {facts}")
        return found


class Slot:
    """A folder of releases with its link, as the updater keeps it; the first release is `1`, whose mark is `~1`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.link = folder / "current"
        self.put("1")
        self.point("1")

    def put(self, version: str, mark: str | None = None, **wrong: Any) -> Path:
        folder = brittle.release(self.folder / "releases" / version, f"~{version}" if mark is None else mark, **wrong)
        (folder / "RELEASE.json").write_bytes(msgspec.json.encode({"name": self.folder.name, "version": version}))
        return folder

    def point(self, version: str) -> None:
        brittle.link(self.link, self.folder / "releases" / version)

    def order(self, version: str, **more: Any) -> ModelOrder:
        path = str(self.folder / "releases" / version)
        return ModelOrder(**{"do": "stage", "model": "talk", "link": str(self.link), "path": path, **more})


async def told(models: Models, order: ModelOrder) -> ModelTold:
    (one,) = await models.obey(order)
    return one


async def look(models: Models) -> ModelTold:
    return await told(models, ModelOrder(do="look", model="talk"))


async def opened(data: Path) -> House:
    """A house on a bus with its streams."""
    house = House(data)
    await streams.apply(house.bus, BASE)
    return house
