"""One slot's way from version to version: does what `plan` says, one move after the other.

What always holds: the state is on the disk before anything is done that cannot be taken back; the only such thing is
the rename of the link; a move that is not wanted any more is ended and the next one begun; a fault of a move is a
reason in the row and a later attempt, never the end of the way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, TypeVar

from msgspec.structs import replace

from bus.stop import stop
from schemas.errors import RoostError
from schemas.model import ModelEvent
from schemas.release import RELEASE_FILE
from schemas.update import UpdateStatus
from updater import asked, plan
from updater.move import Mover
from updater.news import news
from updater.plan import Seen
from updater.shared import Shared
from updater.shown import at_rest, phase_of, still_says
from updater.slots import Slot
from updater.state import SlotState
from updater.store import Store
from updater.unbroken import unbroken

log = logging.getLogger("roost.updater")

LOOK_S = 10.0
"""A link that was changed by hand is noticed within this time."""
TELL_S = 2.0
T = TypeVar("T")


class Way:
    """One slot. `run` until cancelled."""

    def __init__(self, slot: Slot, shared: Shared) -> None:
        self.slot = slot
        self.store = Store(slot.folder)
        self.state = SlotState()
        self.current = ""
        """The version that serves, as it was seen last."""
        self.versions: tuple[str, ...] = ()
        self.source_reason = ""
        self.trouble = ""
        """Why the slot cannot be worked on at all."""
        self.open = asyncio.Event()
        """The slot is ours, and its state is known."""
        self._shared = shared
        self._mover = Mover(self, shared)
        self._poke = asyncio.Event()
        self._untold: asyncio.Queue[tuple[SlotState, SlotState]] = asyncio.Queue()
        self._steady = asyncio.Lock()
        self._deadline: tuple[object, float] = ((), 0.0)
        self._disk: tuple[int, frozenset[str], frozenset[str]] | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Wait for the slot, then keep it up to date until cancelled."""
        with ExitStack() as held:
            while True:
                try:
                    await unbroken(asyncio.to_thread(held.enter_context, self.store.lock()))
                    self.state = await asyncio.to_thread(self.store.load)
                    break
                except RoostError as error:
                    await asyncio.to_thread(held.close)
                    self.trouble = error.message
                    self.show("idle", self.trouble)
                    log.warning("%s", self.trouble)
                    await self._pause(LOOK_S)
            self.trouble = ""
            self.open.set()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tell())
                await self._live()

    async def _live(self) -> None:
        doing: plan.Move | None = None
        task: asyncio.Task[None] | None = None
        try:
            while True:
                self._poke.clear()
                move = await self._move()
                if move is not None and (task is None or doing is None or plan.breaks_off(doing, move)):
                    if task is not None:
                        await stop(task)
                        doing, task = None, None
                        continue  # what was ended may have changed something
                    doing = move
                    task = asyncio.create_task(self._mover.make(move))
                await self._until_poked(task)
                if task is not None and task.done():
                    task.result()
                    doing, task = None, None
        finally:
            if task is not None:
                await stop(task)
            self._mover.close()

    async def _move(self) -> plan.Move | None:
        """What is to be done; None where the slot cannot be looked at."""
        try:
            async with self._steady:
                seen = await self.see()
                if (changed := asked.by_hand(self.state, seen)) is not None:
                    log.warning("%s: %s", self.slot.name, changed.history[-1].reason)
                    await self._save(changed)
        except RoostError as error:
            self.trouble = error.message
            self.show("idle", self.trouble)
            return None
        self.trouble = ""
        return plan.move(self.state, seen)

    async def _until_poked(self, task: asyncio.Task[None] | None) -> None:
        poked = asyncio.create_task(self._poke.wait())
        try:
            await asyncio.wait({poked, *([task] if task else [])}, timeout=LOOK_S, return_when="FIRST_COMPLETED")
        finally:
            await stop(poked)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._poke.wait()
        except TimeoutError:
            pass
        self._poke.clear()

    def poke(self) -> None:
        """Something has changed: look again, and do not wait any longer with another attempt."""
        self._poke.set()
        self._mover.again.set()

    async def planned(self, limit_s: float) -> None:
        """Wait until a swap that is due has begun, for so long at most."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            try:
                if not isinstance(plan.move(self.state, await self.see()), plan.Begin):
                    return
            except RoostError:
                return
            await asyncio.sleep(0.01)

    def use(self, slot: Slot) -> None:
        """The configuration has changed."""
        if slot != self.slot:
            self.slot = slot
            self.poke()

    def learn(self, versions: tuple[str, ...] | None, reason: str) -> None:
        """What a check of the source has found; None where it could not be asked."""
        self.source_reason = reason
        if versions is not None:
            self.versions = versions
        if versions is None and self.state.swap is None:
            self.show(*self.rest())
        else:
            self.poke()

    # -- looking ------------------------------------------------------------------------------------------------

    async def see(self) -> Seen:
        """Everything that a decision needs; raises `ConfigError` where the link is none of ours."""
        self.current, installed, made = await asyncio.to_thread(self._look)
        return Seen(
            now=time.time(),
            current=self.current,
            installed=installed,
            made=made,
            versions=self.versions,
            rollout=self.slot.rollout,
            left_s=self.left_s(),
        )

    def _look(self) -> tuple[str, frozenset[str], frozenset[str]]:
        """Blocking. Folders are read again only when one has come or gone: reading a release takes its time."""
        current = self.store.current()
        try:
            stamp = self.store.releases.stat().st_mtime_ns
        except OSError:
            return current, frozenset(), frozenset()
        if self._disk is None or self._disk[0] != stamp:
            installed = self.store.installed()
            made = [version for version in installed if (self.store.path(version) / RELEASE_FILE).is_file()]
            self._disk = (stamp, frozenset(installed), frozenset(made))
        return current, self._disk[1], self._disk[2]

    def left_s(self) -> float:
        """What is left of a step that ends at a time; a clock that jumps neither ends it nor makes it longer."""
        swap = self.state.swap
        if swap is None or not swap.until:
            return 0.0
        key = (swap.version, swap.step, swap.until)
        if self._deadline[0] != key:
            longest = plan.timed_s(swap.step, self.slot.rollout)
            self._deadline = (key, time.monotonic() + min(longest, max(0.0, swap.until - time.time())))
        return max(0.0, self._deadline[1] - time.monotonic())

    # -- changing -----------------------------------------------------------------------------------------------

    async def change(self, make: Callable[[SlotState, Seen], SlotState]) -> SlotState:
        """Save what `make` makes of the state, and look again; raises what `make` and the disk raise."""
        async with self._steady:
            await self._save(make(self.state, await self.see()))
        self._poke.set()
        return self.state

    async def steadily(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something that no order may come in between of, and that is not broken off."""

        async def held() -> T:
            async with self._steady:
                return await work()

        return await unbroken(held())

    async def _save(self, state: SlotState) -> None:
        async def saved() -> None:
            await asyncio.to_thread(self.store.save, state)
            self._untold.put_nowait((self.state, state))
            self.state = state

        if state != self.state:
            await unbroken(saved())

    async def swept(self) -> None:
        """Remove what nobody needs; a disk that does not permit it is no reason to stop."""
        keep = self._shared.config.keep
        try:
            removed = await self.steadily(lambda: asyncio.to_thread(self.store.sweep, keep, set()))
        except (RoostError, OSError) as error:
            log.warning("%s: old releases stay: %s", self.slot.name, error)
            return
        if removed:
            log.info("%s: removed %s", self.slot.name, ", ".join(removed))

    # -- telling ------------------------------------------------------------------------------------------------

    def show(self, phase: str, reason: str = "", **more: Any) -> None:
        """Have the row say it."""
        self._shared.report.show(self.row(phase, reason, **more))

    def show_now(self) -> None:
        self._shared.report.show(self.status())

    def row(self, phase: str, reason: str = "", **more: Any) -> UpdateStatus:
        swap, state = self.state.swap, self.state
        facts: dict[str, Any] = {
            "version": swap.version if swap else "",
            "until": swap.until if swap else 0.0,
            "fetched": swap.fetched if swap else 0,
        }
        return UpdateStatus(
            name=self.slot.name,
            site=self._shared.report.site,
            phase=phase,  # type: ignore[arg-type]
            at=time.time(),
            current=self.current,
            newest=self.versions[-1] if self.versions else "",
            pinned=state.pinned,
            reason=reason,
            models=self.slot.models,
            **{**facts, **more},
        )

    def rest(self) -> tuple[str, str]:
        """(phase, reason) while nothing is under way."""
        return at_rest(self.state, self.versions, self.source_reason)

    def status(self) -> UpdateStatus:
        """The row as it is now, without waiting for what is under way."""
        swap = self.state.swap
        if self.trouble:
            return self.row("idle", self.trouble)
        if swap is None:
            return self.row(*self.rest())
        shown = self._shared.report.row(self.slot.name)
        if still_says(shown, swap):
            return replace(shown, pinned=self.state.pinned, at=time.time())
        return self.row(phase_of(swap))

    async def _tell(self) -> None:
        """Events and alerts of what the state has become, in order, whatever is done meanwhile."""
        while True:
            for told in news(self.slot.name, *await self._untold.get()):
                if told.event:
                    await self.event(told.event, version=told.version, previous=told.previous, reason=told.reason)
                if told.alert:
                    await self._shared.report.alert(told.alert, told.text)
            self._untold.task_done()

    async def told_all(self) -> None:
        """Wait until everything that has happened was told; a bus that is away is not waited for."""
        try:
            async with asyncio.timeout(TELL_S):
                await self._untold.join()
        except TimeoutError:
            log.warning("%s: the bus does not take our events in time", self.slot.name)

    async def event(self, what: str, **facts: Any) -> None:
        body = {"model": self.slot.name, "what": what, "at": time.time(), **facts}
        await self._shared.report.event(self.slot, ModelEvent(**body))
