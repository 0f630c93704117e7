"""How much of the machine this worker's models use: reads what the power part of the machine decided.

What always holds: work raises the models at once, before the power part has heard of it, and as far as it allows for
work; where there is no power part, or the bus is away, the models use the whole machine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from bus import subjects
from bus.contract import Bus
from schemas.errors import Disconnected, Retryable
from schemas.power import Level, PowerStatus
from workers import Backend

log = logging.getLogger("roost.power")

REFRESH_S = 3.0
SHARES: dict[Level, float] = {"full": 1.0, "normal": 0.75, "low": 0.5}
"""Of the processors that a backend would use otherwise."""

_row = msgspec.json.Decoder(PowerStatus)


class Easing:
    """Keeps the backends at the level of the machine `host` (a token). Call `work` when a job begins.

    `backends`: those that are loaded now; `busy`: jobs that run now.
    """

    def __init__(self, bus: Bus, host: str, backends: Callable[[], Iterable[Backend]], busy: Callable[[], int]) -> None:
        self._bus = bus
        self._host = host
        self._backends = backends
        self._busy = busy
        self._row: PowerStatus | None = None
        self._woken = asyncio.Event()
        self.level: Level = "full"

    def work(self) -> None:
        """A job begins: raise at once, and let the power part know. Takes microseconds while the level is up."""
        wanted: Level = self._row.under_load if self._row is not None else "full"
        if self.level != wanted:
            self._ease(wanted)
            self._woken.set()

    @property
    def share(self) -> float:
        """Of the processors, now."""
        return SHARES[self.level]

    async def run(self) -> None:
        """Refresh every few seconds, until cancelled."""
        refreshed = 0.0
        while True:
            if self._woken.is_set():
                self._woken.clear()
                await self._wake()
            if time.monotonic() - refreshed >= REFRESH_S:
                refreshed = time.monotonic()
                await self._refresh()
            try:
                async with asyncio.timeout(max(0.0, refreshed + REFRESH_S - time.monotonic())):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _wake(self) -> None:
        try:
            await self._bus.send(subjects.wake(self._host), b"")
        except Disconnected as error:
            log.debug("not told: %s", error.message)

    async def _refresh(self) -> None:
        try:
            raw = await self._bus.table("POWER").get(self._host)
            self._row = None if raw is None else _row.decode(raw)
        except (Retryable, Disconnected, msgspec.MsgspecError) as error:
            log.debug("the machine's level is unknown: %s", error)
            self._row = None
        if self._row is None:
            self._ease("full")
        else:
            self._ease(self._row.under_load if self._busy() else self._row.level)

    def _ease(self, level: Level) -> None:
        """Tell all, also those that were told before: one may have been loaded since."""
        if level != self.level:
            log.debug("level %s", level)
        self.level = level
        for backend in self._backends():
            try:
                backend.ease(SHARES[level])
            except Exception:
                log.exception("the backend cannot be eased")
