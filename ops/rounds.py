"""The rounds of the power part: look at the machine, decide, set; every two seconds, and at once when work comes.

What always holds: no bus is needed for any of it; what cannot be set or read is said once and the rounds go on; at
the end, and at the start after a kill, the processor is as it was found.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ops import power, sysfs
from ops.energy import Energy, Meter, Yield
from ops.processor import Processor
from schemas.config import PowerConfig
from schemas.power import PowerEvent, PowerStatus

log = logging.getLogger("roost.power")

EVERY_S = 2.0
MEASURE_S_MIN = 1.0
"""Watts over a shorter time are mostly noise; a round that work has begun does not measure."""
NEWS_MAX = 64
"""Events that wait while the bus is away; the oldest are lost."""


class Rounds:
    """The power of one machine. `working` is set from outside; `changed` tells that `row` and `news` have more."""

    def __init__(self, config: PowerConfig, data: Path, host: str) -> None:
        root = sysfs.root()
        self.host = host
        self.news: deque[PowerEvent] = deque(maxlen=NEWS_MAX)
        self.changed = asyncio.Event()
        self.begun = asyncio.Event()
        """The first round is done."""
        self._config = config
        self._root = root
        self._processor = Processor(data, root)
        self._meter = Meter(root)
        self._measured_at = 0.0
        self._energy: Energy | None = None
        self._yield = Yield()
        self._tokens_per_joule: float | None = None
        self._working = False
        self._worked = False
        """There was work since the last round, however short it was."""
        self._now = asyncio.Event()
        self._stand: power.Stand | None = None
        self._reasons: dict[str, str] = {}
        self._said: set[str] = set()

    # -- what is told to it -----------------------------------------------------------------------------------

    def work(self, working: bool) -> None:
        """There is work, or none."""
        if working and not self._working:
            self._now.set()
        self._working = working
        self._worked |= working

    def generated(self, tokens: Mapping[str, int]) -> None:
        """Tokens generated so far on this machine, by whatever counts them."""
        joules = self._energy.joules if self._energy is not None else None
        self._tokens_per_joule = self._yield.look(time.monotonic(), tokens, joules)

    # -- life -------------------------------------------------------------------------------------------------

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; then the processor is put back."""
        await self._restore("an earlier start was killed")
        if self._config.cpu:
            await asyncio.to_thread(self._processor.open)
        stopped = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                await self._round()
                self.begun.set()
                now = asyncio.create_task(self._now.wait())
                await asyncio.wait({stopped, now}, timeout=EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                now.cancel()
        finally:
            stopped.cancel()
            await self._restore()

    async def _restore(self, reason: str = "") -> None:
        """Also where the processor is not to be set now: what an earlier start has set is put back."""
        done = await asyncio.to_thread(self._processor.restore)
        self._refused("restore", done.failed)
        if done.count:
            log.info("put back %d settings of the processor%s", done.count, f": {reason}" if reason else "")
            self._tell("restored", reason=reason)

    async def _round(self) -> None:
        self._now.clear()
        on_battery = await asyncio.to_thread(self._look)
        seen = power.Seen(at=time.monotonic(), working=self._worked, on_battery=on_battery)
        self._worked = self._working
        old = self._stand
        new = self._stand = power.begin(self._config, seen) if old is None else power.step(self._config, old, seen)
        if old is not None and old.on_battery != new.on_battery:
            self._tell("battery" if new.on_battery else "mains")
        if old is not None and old.level == new.level:
            return
        self._refused("set", await asyncio.to_thread(self._processor.apply, new.level))
        log.info("level %s%s", new.level, f" after {old.level}" if old else "")
        self._tell("level", previous=old)

    def _look(self) -> bool | None:
        at = time.monotonic()
        if at - self._measured_at >= MEASURE_S_MIN:
            self._measured_at = at
            self._energy = self._meter.read(at)
            closed = self._meter.rapl.forbidden() if self._energy is None else None
            self._refused("measure", [f"{closed}: Permission denied"] if closed else [])
        return sysfs.on_battery(self._root)

    # -- what it tells ----------------------------------------------------------------------------------------

    def row(self) -> PowerStatus:
        """How the machine is."""
        stand, energy = self._stand, self._energy
        if stand is None:
            raise RuntimeError("there was no round yet")
        return PowerStatus(
            host=self.host,
            profile=self._config.profile,
            level=stand.level,
            under_load=power.under_load(self._config, stand.on_battery),
            seen_at=time.time(),
            on_battery=stand.on_battery,
            sets=self._processor.sets,
            reason="; ".join(reason for reason in self._reasons.values() if reason),
            source=energy.source if energy is not None else "",
            watts=round(energy.watts, 3) if energy is not None else None,
            joules=round(energy.joules, 3) if energy is not None else None,
            tokens_per_joule=self._tokens_per_joule if energy is not None else None,
        )

    def _refused(self, what: str, reasons: list[str]) -> None:
        """Say once what cannot be done; the row has it for as long as it lasts.

        Counters are closed to everybody but root on most machines: that is told in the log, not on the terminal.
        """
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        self._reasons[what] = reason = f"{CANNOT[what]}: {reasons[0]}{more}" if reasons else ""
        if reason and what not in self._said:
            self._said.add(what)
            log.log(logging.INFO if what == "measure" else logging.WARNING, "%s; going on without", reason)
            self._tell("refused", reason=reason)

    def _tell(
        self,
        what: Literal["level", "battery", "mains", "refused", "restored"],
        *,
        reason: str = "",
        previous: power.Stand | None = None,
    ) -> None:
        level = self._stand.level if self._stand is not None else None
        before = previous.level if previous is not None else None
        event = PowerEvent(host=self.host, what=what, at=time.time(), level=level, previous=before, reason=reason)
        self.news.append(event)
        self.changed.set()


CANNOT = {
    "set": "the processor's power cannot be set",
    "restore": "the processor's power cannot be put back",
    "measure": "energy cannot be measured",
}
