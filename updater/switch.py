"""The switch: the link is renamed, everybody is told, and whether workers can serve what it names now is watched.

What always holds: the rename is the only step that cannot be taken back, and the state was on the disk before it; all
else may be done again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from schemas.errors import RoostError
from updater import after, asked
from updater.plan import Seen
from updater.shared import Shared
from updater.shown import phase_of
from updater.state import SlotState, Swap
from updater.swap import Beside, Outcome

if TYPE_CHECKING:
    from updater.way import Way

log = logging.getLogger("roost.updater")

TICK_S = 1.0
AGAIN_S = 1.0
LOOKS_MAX = 3
DEATHS_MAX = 3
"""Deaths of workers soon after a switch that are no accident any more."""
Change = Callable[[Callable[[SlotState, Seen], SlotState]], Awaitable[bool]]
"""Changes the state unless an order has in the meantime; whether it did."""


class Switch:
    """For one slot."""

    def __init__(self, way: Way, shared: Shared, beside: Beside, change: Change) -> None:
        self.way = way
        self._shared = shared
        self._beside = beside
        self._change = change

    async def flip(self, last_byte: tuple[str, float]) -> None:
        """Have the link name the version, tell everybody, and wait until all have confirmed.

        `last_byte`: a version that was fetched, and when its last byte came (monotonic).
        """
        way, swap = self.way, after.under_way(self.way.state)
        await way.told_all()
        began = time.monotonic()
        if not await way.steadily(lambda: self._point(swap)):
            return
        flip_s = time.monotonic() - began
        way.show(phase_of(swap))
        self._beside.flipped()
        what = "rolled_back" if swap.back else "swapped"
        facts: dict[str, Any] = {"version": swap.version, "previous": swap.previous, "reason": swap.reason}
        await way.event(what, **facts, until=swap.until)
        wrong = await self._confirmed()
        seconds = {"flip": flip_s, "switched": time.monotonic() - began}
        if last_byte[0] == swap.version:
            seconds["since_last_byte"] = time.monotonic() - last_byte[1]
        bad = next((outcome.reason for outcome in wrong if outcome.how == "bad"), "")
        if bad and not swap.back and await self._go_back(bad):
            return
        if wrong:
            await self._shared.report.alert("update_unconfirmed", f"{way.slot.name} {swap.version}: {wrong[0].reason}")
        if swap.previous:
            await way.steadily(lambda: asyncio.to_thread(way.store.point, "standby", swap.previous))
        log.info("%s: %s serves, before: %s", way.slot.name, swap.version, swap.previous or "nothing")
        await self._change(lambda state, seen: after.flipped(after.took(state, seconds), seen.now))

    async def _point(self, swap: Swap) -> bool:
        """The rename; whether the link names the version now. Not done where an order or a hand was faster."""
        way = self.way
        current = await asyncio.to_thread(way.store.current)
        if way.state.swap != swap or current not in ("", swap.previous, swap.version):
            return False
        await asyncio.to_thread(way.store.point, "current", swap.version)
        way.current = swap.version
        return True

    async def _confirmed(self) -> list[Outcome]:
        """Ask until all workers serve what the link names, or have failed to often enough."""
        wrong: list[Outcome] | None = None
        for attempt in range(LOOKS_MAX):
            if attempt:
                await asyncio.sleep(AGAIN_S)
            wrong = await self._beside.look(self.way.slot, self._shared.config.load_s)
            if wrong is not None and (not wrong or any(outcome.how == "bad" for outcome in wrong)):
                return wrong
        return wrong or []

    async def watch(self) -> None:
        """The new version serves; `ops` compares its answers, here it is seen whether workers can run it at all."""
        way, deaths, failing = self.way, 0, ""
        way.show("watching")
        known = {worker.id: worker for worker in await self._shared.workers.live(way.slot)}
        while way.left_s() > 0:
            await asyncio.sleep(min(TICK_S, way.left_s()))
            try:
                live = await self._shared.workers.live(way.slot)
                wrong = await self._beside.look(way.slot, self._shared.config.load_s) or []
                failed = await self._beside.failed(way.slot)
            except RoostError as error:
                log.info("%s: not watched now: %s", way.slot.name, error.message)
                continue
            deaths += sum(1 for w in live if w.id in known and w.started_at != known[w.id].started_at)
            known.update({worker.id: worker for worker in live})
            reason = next((outcome.reason for outcome in wrong if outcome.how == "bad"), failing and failed)
            failing = failed
            if deaths >= DEATHS_MAX:
                reason = f"workers died {deaths} times since it serves"
            if reason and await self._go_back(reason):
                return

    async def _go_back(self, reason: str) -> bool:
        """Begin the way back by ourselves; False where there is nothing to go back to."""
        try:
            return await self._change(lambda state, seen: asked.rolled_back(state, seen, "", reason, "updater"))
        except RoostError as error:
            text = f"{self.way.slot.name} {self.way.current}: {reason}; it stays, for {error.message}"
            await self._shared.report.alert("update_stuck", text)
            return False
