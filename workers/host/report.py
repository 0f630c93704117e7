"""Tells the bus how the models of this worker are: one row each in MODELS, and one for the worker in WORKERS.

What always holds: rows are rewritten when they change, when the bus is back, and before they age out; the row of a
model that is no longer ours is taken away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence

import msgspec

from bus import streams
from bus.contract import Bus
from schemas.errors import Disconnected, Retryable
from schemas.model import ModelStatus, WorkerStatus

log = logging.getLogger("roost.models")

REPORT_S = streams.LIVE_S / 3
_status = msgspec.json.Decoder(ModelStatus)


class Report:
    """The rows of one worker."""

    def __init__(self, bus: Bus, worker: str, rows: Callable[[], Sequence[ModelStatus]]) -> None:
        self._bus = bus
        self._worker = worker
        self._rows = rows
        self._started = time.time()
        self._shown: set[str] = set()
        self._changed = asyncio.Event()

    def poke(self) -> None:
        """A row has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        self._bus.on_reconnect.append(self.poke)
        while True:
            self._changed.clear()
            try:
                await self._write()
            except (Retryable, Disconnected) as error:
                log.warning("the bus does not take our status: %s", error.message)
            try:
                async with asyncio.timeout(REPORT_S):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _write(self) -> None:
        table = self._bus.table("MODELS")
        rows = {row.name: row for row in self._rows()}
        for name in self._shown - rows.keys():
            await table.delete(f"{name}.{self._worker}")
            self._shown.discard(name)
        for name, row in rows.items():
            self._shown.add(name)
            await table.put(f"{name}.{self._worker}", msgspec.json.encode(row))
        me = WorkerStatus(
            id=self._worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started,
            seen_at=time.time(),
            models=tuple(rows),
        )
        await self._bus.table("WORKERS").put(self._worker, msgspec.json.encode(me))

    async def others(self, model: str) -> bool:
        """Another living worker has this model, or will have it when it is asked for."""
        try:
            rows = [_status.decode(row) for row in (await self._bus.table("MODELS").entries()).values()]
        except (Retryable, Disconnected, msgspec.DecodeError) as error:
            log.warning("cannot see who else serves %s: %s", model, error)
            return True
        there = ("ready", "loading", "asleep", "unloading")
        return any(row.name == model and row.worker != self._worker and row.state in there for row in rows)

    async def goodbye(self) -> None:
        """Take our rows away, so that nobody waits for them to age out."""
        try:
            for name in self._shown:
                await self._bus.table("MODELS").delete(f"{name}.{self._worker}")
            await self._bus.table("WORKERS").delete(self._worker)
        except (Retryable, Disconnected) as error:
            log.warning("our rows stay until they age out: %s", error.message)
