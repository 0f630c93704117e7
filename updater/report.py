"""Tells the bus how the slots of this site are: rows in UPDATES, events of their models, alerts.

What always holds: a row is rewritten when it changes (progress at most once a second), when the bus is back, and before
it ages out; nothing waits for the bus to take a row.
"""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec
from msgspec.structs import replace

from bus import streams
from bus.contract import Bus
from schemas.errors import Disconnected, Retryable
from schemas.model import ModelEvent
from schemas.update import UpdateStatus
from updater.slots import Slot

log = logging.getLogger("roost.updater")

REPORT_S = streams.LIVE_S / 3
PROGRESS_S = 1.0


class Report:
    """The rows of one site, by slot."""

    def __init__(self, bus: Bus, site: str) -> None:
        self.site = site
        self._bus = bus
        self._rows: dict[str, UpdateStatus] = {}
        self._written: set[str] = set()
        self._stale: set[str] = set()
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()

    def rows(self) -> tuple[UpdateStatus, ...]:
        return tuple(self._rows.values())

    def row(self, name: str) -> UpdateStatus:
        return self._rows.get(name) or UpdateStatus(name=name, site=self.site, phase="idle", at=time.time())

    def show(self, row: UpdateStatus) -> None:
        """The row is like this now; written at once, unless only its progress differs."""
        old = self._rows.get(row.name)
        self._rows[row.name] = row
        if old is None or _plain(old) != _plain(row):
            self._stale.add(row.name)
            self._changed.set()

    def drop(self, name: str) -> None:
        """The slot is no longer configured."""
        self._rows.pop(name, None)
        self._stale.add(name)
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        self._bus.on_reconnect.append(self._again)
        full_at = time.monotonic()
        while True:
            self._changed.clear()
            if time.monotonic() >= full_at:
                self._stale |= self._rows.keys()
                full_at = time.monotonic() + REPORT_S
            self._stale |= {name for name, row in self._rows.items() if row.phase == "fetching"}
            await self.write()
            try:
                async with asyncio.timeout(PROGRESS_S):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _again(self) -> None:
        self._stale |= self._rows.keys()
        self._changed.set()

    async def write(self) -> None:
        """Bring what has changed to the table now; what the bus does not take is written later."""
        async with self._writing:
            for name in list(self._stale):
                row = self._rows.get(name)
                self._stale.discard(name)
                try:
                    if row is not None:
                        self._written.add(name)
                        data = msgspec.json.encode(replace(row, at=time.time()))
                        await self._bus.table("UPDATES").put(f"{name}.{self.site}", data)
                    else:
                        await self._bus.table("UPDATES").delete(f"{name}.{self.site}")
                        self._written.discard(name)
                except (Retryable, Disconnected) as error:
                    self._stale.add(name)
                    log.warning("the bus does not take our status: %s", error.message)
                    return

    async def goodbye(self) -> None:
        """Take our rows away, so that nobody waits for them to age out."""
        self._rows.clear()
        self._stale |= self._written
        await self.write()

    async def event(self, slot: Slot, event: ModelEvent) -> None:
        """Publish it for each model that uses the slot; all of them at once, for workers wait for it."""
        async with asyncio.TaskGroup() as group:
            for model in slot.models:
                told = replace(event, model=model, site=self.site, at=time.time())
                group.create_task(self._bus.event("model", model, event.what, body=told))

    async def alert(self, code: str, message: str) -> None:
        await self._bus.alert(code, message, part="updater")


def _plain(row: UpdateStatus) -> UpdateStatus:
    """A row without what changes all the time."""
    return replace(row, at=0.0, done=0, fetched=0, per_s=0.0)
