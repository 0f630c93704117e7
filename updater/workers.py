"""Orders to the workers of this site, and what became of those who do not answer.

What always holds: whoever is asked has answered, died, gone or run out of time when a call returns; an order may be
given twice, and is when the bus comes back while somebody waits for an answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from bus import streams, subjects
from bus.contract import Bus
from bus.site import site_of
from bus.stop import stop
from schemas.errors import Disconnected, Retryable
from schemas.model import ModelOrder, ModelStatus, ModelTold, WorkerStatus
from updater.slots import Slot

log = logging.getLogger("roost.updater")

LOOK_S = 0.5
GONE_S = 5.0
"""A row that stays away for this long is no accident of a bus that has just been started anew."""
SILENT_S = 0.8 * streams.LIVE_S
"""A row that was not rewritten for this long before it went has aged out: its writer has died."""

Lost = Literal["", "died", "gone", "silent"]


class Reply(Struct, frozen=True, kw_only=True):
    """One worker's answer for one model. `gone`: it was stopped; `silent`: it lives, and did not answer in time."""

    worker: str
    model: str
    told: tuple[ModelTold, ...] = ()
    lost: Lost = ""


class Life(Struct, frozen=True):
    """One process of a worker; started anew it keeps its id and is another."""

    pid: int
    started_at: float


class Workers:
    """The live workers of one site."""

    def __init__(self, bus: Bus, site: str) -> None:
        self._bus = bus
        self._site = site
        self._back = asyncio.Event()
        bus.on_reconnect.append(self._back.set)

    async def live(self, slot: Slot) -> list[WorkerStatus]:
        """Those that serve a model of the slot; raises `Retryable`, `Disconnected`."""
        rows = await self._bus.table("WORKERS").entries()
        return [
            row
            for row in (_worker(data) for data in rows.values())
            if row is not None and self._ours(row.id) and not row.draining and set(row.models) & set(slot.models)
        ]

    async def models(self, slot: Slot) -> list[ModelStatus]:
        """What they say of the slot's models; raises `Retryable`, `Disconnected`."""
        found = []
        for data in (await self._bus.table("MODELS").entries()).values():
            try:
                row = msgspec.json.decode(data, type=ModelStatus)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if row.name in slot.models and self._ours(row.worker):
                found.append(row)
        return found

    async def all(self, workers: Sequence[WorkerStatus], slot: Slot, order: ModelOrder, limit_s: float) -> list[Reply]:
        """Give the order to all of them at once, for one model after the other."""
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._each(worker, slot, order, limit_s)) for worker in workers]
        return [reply for task in asked for reply in task.result()]

    async def _each(self, worker: WorkerStatus, slot: Slot, order: ModelOrder, limit_s: float) -> list[Reply]:
        replies: list[Reply] = []
        for model in (name for name in slot.models if name in worker.models):
            reply = await self._ask(worker, replace(order, model=model, link=slot.link), limit_s)
            replies.append(reply)
            if reply.lost:
                break
        return replies

    async def _ask(self, worker: WorkerStatus, order: ModelOrder, limit_s: float) -> Reply:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._answer(worker.id, order, limit_s))
            watching = group.create_task(self._end_of(worker))
            await asyncio.wait({asking, watching}, return_when=asyncio.FIRST_COMPLETED)
            told = asking.result() if asking.done() else None
            lost: Lost = "" if told else watching.result() if watching.done() else "silent"
            await stop(asking, watching)
        if lost:
            log.warning("worker %s is %s on the order to %s %s", worker.id, lost, order.do, order.model)
        return Reply(worker=worker.id, model=order.model, told=told or (), lost=lost)

    async def _answer(self, worker: str, order: ModelOrder, limit_s: float) -> tuple[ModelTold, ...] | None:
        """The answer, asked for again when the bus was away in between; None when the time is over."""
        deadline = time.monotonic() + limit_s
        while (left_s := deadline - time.monotonic()) > 0:
            self._back.clear()
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(self._once(worker, order, left_s))
                again = group.create_task(self._back.wait())
                await asyncio.wait({asking, again}, return_when=asyncio.FIRST_COMPLETED)
                told = asking.result() if asking.done() else None
                await stop(asking, again)
            if told is not None:
                return told
            await asyncio.sleep(min(LOOK_S, max(0.0, deadline - time.monotonic())))
        return None

    async def _once(self, worker: str, order: ModelOrder, limit_s: float) -> tuple[ModelTold, ...] | None:
        try:
            data = await self._bus.request(subjects.models(worker), msgspec.json.encode(order), limit_s)
            return msgspec.json.decode(data, type=tuple[ModelTold, ...]) or None
        except (Retryable, Disconnected):
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("worker %s answers what cannot be read: %s", worker, error)
            return None

    async def _end_of(self, worker: WorkerStatus) -> Lost:
        """Wait until this process of the worker is no more."""
        seen, changed_at, missing_since = worker.seen_at, time.monotonic(), 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                data = await self._bus.table("WORKERS").get(worker.id)
            except (Retryable, Disconnected):
                missing_since = 0.0
                continue
            row, now = _worker(data) if data else None, time.monotonic()
            if row is None:
                missing_since = missing_since or now
                if now - changed_at >= SILENT_S:
                    return "died"
                if now - missing_since >= GONE_S:
                    return "gone"
                continue
            if life(row) != life(worker):
                return "gone" if missing_since else "died"
            missing_since = 0.0
            if row.seen_at != seen:
                seen, changed_at = row.seen_at, now

    def _ours(self, worker: str) -> bool:
        return site_of(worker) == self._site


def life(worker: WorkerStatus) -> Life:
    return Life(worker.pid, worker.started_at)


def _worker(data: bytes) -> WorkerStatus | None:
    try:
        return msgspec.json.decode(data, type=WorkerStatus)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
