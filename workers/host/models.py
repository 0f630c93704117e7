"""The models of one worker: one `Served` for each name, the memory that they share, and the rows that tell of them.

One model that is absent or broken never stops the others. `apply` takes a changed configuration up while all of them
serve; a model that is no longer in it answers with that reason, also after a restart, for as long as messages may wait.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bus import streams, subjects
from bus.consume import Consumer
from bus.contract import Bus, Sessions
from bus.stop import stop
from schemas.config import Config, ModelConfig
from schemas.errors import ConfigError, Disconnected, Rejected, Retryable, RoostError
from schemas.model import ModelOrder, ModelStatus, ModelTold
from workers import Backend
from workers.host.load import Scratch
from workers.host.orders import refused
from workers.host.power import Easing
from workers.host.registry import kind_of
from workers.host.report import Report
from workers.host.room import Room
from workers.host.served import Served
from workers.host.shared import Shared
from workers.host.trials import Trials

log = logging.getLogger("roost.models")


class Models:
    """Everything that this worker serves."""

    def __init__(self, bus: Bus, sessions: Sessions, config: Config, worker: str, data: Path) -> None:
        self._bus = bus
        self._sessions = sessions
        self._config = config
        self._worker = worker
        number = worker.rpartition("-")[2]
        self._known_file = data / "run" / f"models-{number}.json"
        self._scratch = Scratch(data / "scratch" / f"worker-{number}")
        self._room = Room(config.worker)
        self._trials = Trials()
        self._report = Report(bus, worker, self._rows)
        self._easing = Easing(bus, subjects.host(socket.gethostname()), self._backends, self._busy)
        self._served: dict[str, Served] = {}
        self._shared: Shared | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._shrinking: list[asyncio.Task[None]] = []
        self.settled = asyncio.Event()
        """Every model but those of the background (`Backend.background`) is ready, asleep, absent or failed."""

    async def serve(self, stopping: asyncio.Event) -> None:
        """Serve what is configured until `stopping`, then drain."""
        await asyncio.to_thread(self._scratch.clear)
        removed = await self._removed_meanwhile()
        async with asyncio.TaskGroup() as lanes:
            self._shared = Shared(
                self._bus,
                self._sessions,
                self._worker,
                self._room,
                self._scratch,
                self._report,
                self._trials,
                lanes,
                at_work=self._easing.work,
                level=lambda: self._easing.share,
            )
            report = lanes.create_task(self._report.run())
            easing = lanes.create_task(self._easing.run())
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for name in removed:
                    self._serve_name(name).want(None, name)
                await self.apply(self._config)
                for served in list(self._served.values()):
                    await served.settled.wait()
                self.settled.set()
                self._want_all()
                await stopping.wait()
                self._tasks = None
                for served in self._served.values():
                    served.stop()
                await stop(*self._shrinking)
            self._trials.close()
            await stop(report, easing)
        await self._report.goodbye()
        await asyncio.to_thread(self._scratch.clear)

    async def apply(self, config: Config) -> None:
        """Bring what runs to `config`; returns at once, and the newest configuration counts."""
        if self._tasks is None:
            return
        other = config.worker != self._room.config
        self._config, self._room.config = config, config.worker
        names = {model.name for model in config.models}
        await asyncio.to_thread(self._know, {*names, *self._served})
        for name in self._served.keys() - names:
            self._served[name].want(None, name)
        self._want_all(again=other)
        if other:
            await stop(*self._shrinking)
            self._shrinking = [self._tasks.create_task(self._room.shrink(config.limits.outage_s))]

    def _want_all(self, *, again: bool = False) -> None:
        """Those of the background only when all others are settled."""
        for i, model in enumerate(self._config.models):
            if self.settled.is_set() or not _background(model):
                served = self._served.get(model.name) or self._serve_name(model.name)
                served.want(model, f"models[{i}] ({model.name})", again=again)

    def _serve_name(self, name: str) -> Served:
        assert self._shared is not None
        assert self._tasks is not None
        served = self._served[name] = Served(self._shared, name)
        self._tasks.create_task(served.run())
        return served

    # -- from outside -------------------------------------------------------------------------------------------

    @property
    def consumers(self) -> dict[str, Consumer]:
        """Those that run now, by model."""
        return {name: s.intake.consumer for name, s in self._served.items() if s.intake.consumer is not None}

    def cancel(self, request: str) -> None:
        for served in self._served.values():
            served.loop.cancel(request)
            served.stage.cancel(request)

    async def obey(self, order: ModelOrder) -> list[ModelTold]:
        """Carry out what is asked of one model, or of all; one after the other where lanes are loaded anew."""
        names = [order.model] if order.model else [m.name for m in self._config.models]
        orders = [replace(order, model=name) for name in names]
        if order.do in ("reload", "unload"):
            return [await self._obey(one) for one in orders]
        return list(await asyncio.gather(*map(self._obey, orders)))

    async def _obey(self, order: ModelOrder) -> ModelTold:
        try:
            served = self._served.get(order.model)
            if served is None:
                raise Rejected(f"there is no model {order.model!r} here", code="unknown_model")
            return await served.order(order)
        except RoostError as error:
            return refused(order.model, self._worker, error)

    def _backends(self) -> list[Backend]:
        """Those that people wait for."""
        return [backend for served in self._served.values() for backend in served.backends]

    def _busy(self) -> int:
        return sum(served.resident.busy for served in self._served.values())

    def _rows(self) -> list[ModelStatus]:
        return [row for served in self._served.values() if (row := served.row()) is not None]

    # -- models that are gone -----------------------------------------------------------------------------------

    def _know(self, names: set[str]) -> None:
        """Remember whose messages may wait for this worker, beyond its own life. Blocking."""
        try:
            self._known_file.write_bytes(msgspec.json.encode(sorted(names)))
        except OSError as error:
            log.warning("%s: %s; messages to a removed model may wait after a restart", self._known_file, error)

    async def _removed_meanwhile(self) -> list[str]:
        """Models that an earlier process served, that are no longer configured, and for which messages wait."""
        try:
            known = msgspec.json.decode(await asyncio.to_thread(self._known_file.read_bytes), type=set[str])
        except (OSError, msgspec.MsgspecError):
            return []
        waiting = []
        for name in sorted(known - {model.name for model in self._config.models}):
            try:
                consumer = streams.work_consumer(name, self._config.limits)[0]
                info = await self._bus.consumer_info(streams.INBOX, consumer)
            except (Retryable, Disconnected):
                waiting.append(name)
                continue
            if info is not None and info.waiting + info.unfinished > 0:
                waiting.append(name)
        return waiting


def _background(model: ModelConfig) -> bool:
    """It is loaded when all others are: importing torch alone takes seconds, in which nobody should wait."""
    try:
        return kind_of(model.type).background
    except ConfigError:
        return False
