"""The models of one worker: load them on their lanes, serve their queues, tell the bus how they are.

One model that is absent or broken never stops the others: its row says why, and an absent file is looked for again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bus import streams
from bus.consume import Consumer
from bus.contract import Bus, Sessions
from bus.stop import stop
from schemas.config import Config, ModelConfig
from schemas.errors import ConfigError, Disconnected, Retryable, RoostError
from schemas.model import ModelEvent, ModelState, ModelStatus, WorkerStatus
from workers.host.lane import Lane
from workers.host.loop import ModelLoop
from workers.host.registry import backend_of

log = logging.getLogger("roost.models")

LOOK_AGAIN_S = 5.0
REPORT_S = streams.LIVE_S / 3


class Models:
    """Everything that this worker serves."""

    def __init__(self, bus: Bus, sessions: Sessions, config: Config, worker: str) -> None:
        self._bus = bus
        self._sessions = sessions
        self._config = config
        self._worker = worker
        self._started = time.time()
        self._status: dict[str, ModelStatus] = {}
        self._changed = asyncio.Event()
        self.consumers: dict[str, Consumer] = {}
        self.loops: dict[str, ModelLoop] = {}
        self.settled = asyncio.Event()
        """Every model is ready, absent or failed."""

    async def serve(self, stopping: asyncio.Event) -> None:
        """Load and serve every configured model until `stopping`, then drain."""
        self._bus.on_reconnect.append(self._changed.set)
        async with asyncio.TaskGroup() as tasks:
            report = tasks.create_task(self._report())
            async with asyncio.TaskGroup() as models:
                for i, model in enumerate(self._config.models):
                    models.create_task(self._serve_one(model, f"models[{i}] ({model.name})", stopping))
            await stop(report)
        await self._goodbye()

    async def _serve_one(self, model: ModelConfig, place: str, stopping: asyncio.Event) -> None:
        self._set(model, "loading")
        while not stopping.is_set():
            try:
                lane = await self._load(model, place)
                break
            except RoostError as error:
                absent = isinstance(error, ConfigError)
                self._set(model, "absent" if absent else "failed", reason=error.message)
                log.warning("%s: %s", place, error.message)
                if not absent:
                    event = self._event(model, "failed", error.message)
                    await self._bus.event("model", model.name, "failed", body=event)
            except Exception as error:
                log.exception("%s: loading failed", place)
                self._set(model, "failed", reason=f"{type(error).__name__}: {error}")
            if not await self._look_again(model, stopping):
                return
        else:
            return
        loop = ModelLoop(self._bus, self._sessions, self._worker, model, lane)
        name, spec = streams.work_consumer(model.name, self._config.limits)
        consumer = Consumer(
            self._bus,
            streams.INBOX,
            name,
            spec,
            loop,
            slots=lane.backend.slots,
            parked_max=self._config.limits.parked_max,
        )
        self.consumers[model.name], self.loops[model.name] = consumer, loop
        self._set(model, "ready", lane=lane)
        await self._bus.event("model", model.name, "loaded", body=self._event(model, "loaded"))
        try:
            await consumer.run(stopping)
        finally:
            self._set(model, "unloading", lane=lane)
            await lane.close()

    async def _load(self, model: ModelConfig, place: str) -> Lane:
        backend = backend_of(model, place)
        path = Path(model.path) if model.path else None
        if path is not None and not path.exists():
            raise ConfigError(f"{path} does not exist; `make model` fetches the starter model")
        lane = Lane(model.name, backend)
        started = time.monotonic()
        try:
            await lane.load(path)
        except BaseException:
            await lane.close()
            raise
        log.info("%s %s ready after %.2f s", place, backend.version, time.monotonic() - started)
        return lane

    async def _look_again(self, model: ModelConfig, stopping: asyncio.Event) -> bool:
        """Wait until the model's file appears; False when stopping. A file that is there and broken is left alone."""
        was_there = bool(model.path) and await asyncio.to_thread(Path(model.path).exists)
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await stopping.wait()
                return False
            except TimeoutError:
                if model.path and not was_there and await asyncio.to_thread(Path(model.path).exists):
                    return True

    # -- telling the bus --------------------------------------------------------------------------------------

    def _event(self, model: ModelConfig, what: str, reason: str = "") -> ModelEvent:
        version = self._status[model.name].version
        return msgspec.convert(
            {"model": model.name, "what": what, "at": time.time(), "version": version, "reason": reason}, ModelEvent
        )

    def _set(self, model: ModelConfig, state: ModelState, *, reason: str = "", lane: Lane | None = None) -> None:
        backend = lane.backend if lane else None
        self._status[model.name] = ModelStatus(
            name=model.name,
            type=model.type,
            worker=self._worker,
            state=state,
            version=backend.version if backend else "",
            reason=reason,
            context=backend.context if backend else 0,
            slots=backend.slots if backend else 0,
            description=model.description,
        )
        if len(self._status) == len(self._config.models) and all(s.state != "loading" for s in self._status.values()):
            self.settled.set()
        self._changed.set()

    async def _report(self) -> None:
        """Rewrite this worker's rows when they change, when the bus is back, and before they age out."""
        models, workers = self._bus.table("MODELS"), self._bus.table("WORKERS")
        while True:
            self._changed.clear()
            try:
                for name, status in list(self._status.items()):
                    loop = self.loops.get(name)
                    row = replace(status, busy=loop.busy if loop else 0)
                    await models.put(f"{name}.{self._worker}", msgspec.json.encode(row))
                await workers.put(self._worker, msgspec.json.encode(self._me()))
            except (Retryable, Disconnected) as error:
                log.warning("the bus does not take our status: %s", error.message)
            try:
                async with asyncio.timeout(REPORT_S):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _me(self, *, draining: bool = False) -> WorkerStatus:
        return WorkerStatus(
            id=self._worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started,
            seen_at=time.time(),
            models=tuple(self._status),
            draining=draining,
        )

    async def _goodbye(self) -> None:
        """Take our rows away, so that nobody waits for them to age out."""
        try:
            for name in self._status:
                await self._bus.table("MODELS").delete(f"{name}.{self._worker}")
            await self._bus.table("WORKERS").delete(self._worker)
        except (Retryable, Disconnected) as error:
            log.warning("our rows stay until they age out: %s", error.message)
