"""Makes the moves of `plan` for one slot: fetches, has workers load, flips the link, watches.

What always holds: each move may be broken off anywhere and made again; what it changes in the state it changes only
while the state is still the one that the move was for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from schemas.errors import RoostError, Untrusted
from updater import after
from updater.fetching import fetched_into
from updater.plan import Begin, Drop, Fetch, Flip, Hold, Load, Move, Next, Rest, Seen, Settle, Share, Watch
from updater.shared import Shared
from updater.shown import phase_of
from updater.state import SlotState
from updater.swap import Beside, Outcome, Wanted
from updater.switch import Switch

if TYPE_CHECKING:
    from updater.way import Way

log = logging.getLogger("roost.updater")

TICK_S = 1.0
AGAIN_S, AGAIN_S_MAX = 1.0, 300.0
WORKER_AGAIN_S_MAX = 10.0
"""A worker that was away may be back soon."""
BACK_S = 120.0
"""For how long workers may load the old version before the link is flipped to it anyway."""
LATE_S = 60.0
"""A worker that gives up at `updates.load_s` frees what it has taken, and then says so."""


class _Failures(Struct):
    """Attempts at one thing that came to nothing."""

    of: tuple[object, ...] = ()
    count: int = 0


class Mover:
    """Makes one move at a time for `way`, which decides and which it changes."""

    def __init__(self, way: Way, shared: Shared) -> None:
        self.way = way
        self.again = asyncio.Event()
        """Do not wait any longer with the next attempt."""
        self._shared = shared
        self._beside = Beside(shared.workers)
        self._switch = Switch(way, shared, self._beside, self._change)
        self._turn = False
        self._failures = _Failures()
        self._last_byte: tuple[str, float] = ("", 0.0)
        """A version that this process has fetched, and when its last byte came (monotonic)."""

    def close(self) -> None:
        self._yield_turn()

    async def make(self, move: Move) -> None:
        """One attempt, and the wait after it where it came to nothing."""
        self.again.clear()
        try:
            if not isinstance(move, Load | Share | Flip | Next):
                self._yield_turn()
                if self._beside.loaded:
                    await self._beside.unstage(self.way.slot)
            await self._make(move)
        except Untrusted as error:
            await self._refuse(error.message)
        except RoostError as error:
            await self._later(error.message, getattr(error, "after_s", 0.0))
        except Exception:
            log.exception("%s: %s failed", self.way.slot.name, type(move).__name__.lower())
            await self._later("an error inside the updater; its log has more")

    async def _make(self, move: Move) -> None:
        match move:
            case Rest():
                await self._rest()
            case Begin():
                await self.way.swept()
                await self.way.change(lambda s, seen: s if s.swap else after.begun(s, seen, move.version))
            case Fetch():
                await self._fetch(move.version)
            case Hold():
                self.way.show("staged", f"`roost update apply {self.way.slot.name}` takes it into use")
                await self.again.wait()
            case Next():
                await self._advance()
            case Load():
                await self._load(move)
            case Share():
                await self._share(move)
            case Flip():
                await self._switch.flip(self._last_byte)
            case Watch():
                await self._switch.watch()
            case Settle():
                await self._change(lambda state, seen: after.settled(state, seen.now))
            case Drop():
                log.info("%s: dropped: %s", self.way.slot.name, move.reason)
                await self._change(lambda state, _: after.dropped(state))

    # -- the state ----------------------------------------------------------------------------------------------

    async def _change(self, make: Callable[[SlotState, Seen], SlotState]) -> bool:
        """Change the state unless an order has in the meantime; whether it did."""
        meant = self.way.state.swap

        def unless(state: SlotState, seen: Seen) -> SlotState:
            return make(state, seen) if state.swap == meant and meant is not None else state

        before = self.way.state
        return await self.way.change(unless) is not before

    async def _advance(self, seconds: dict[str, float] | None = None, *, alone: bool = False) -> bool:
        return await self._change(
            lambda state, seen: after.advanced(after.took(state, seconds or {}), seen, alone=alone)
        )

    async def _refuse(self, reason: str) -> None:
        """Block the version at work."""
        if self.way.state.swap is None or self.way.state.swap.back:
            await self._later(reason)
        else:
            await self._change(lambda state, seen: after.refused(state, seen.now, reason))

    async def _later(self, reason: str, after_s: float = 0.0, *, phase: str = "", most_s: float = AGAIN_S_MAX) -> None:
        """Show why, let others have their turn, and wait; longer each time, but for the same thing only."""
        self._yield_turn()
        swap = self.way.state.swap
        key = (swap.version, swap.step) if swap else ()
        self._failures = _Failures(of=key, count=self._failures.count + 1 if self._failures.of == key else 1)
        wait_s = min(most_s, max(after_s, AGAIN_S * 2.0 ** min(self._failures.count - 1, 20)))
        log.warning("%s: %s; again in %.0f s", self.way.slot.name, reason, wait_s)
        self.way.show(phase or (phase_of(swap) if swap else "idle"), reason)
        try:
            async with asyncio.timeout(wait_s):
                await self.again.wait()
        except TimeoutError:
            pass

    # -- moves --------------------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        self.way.show(*self.way.rest())
        await self.way.swept()
        while not self._beside.free:
            await self._beside.unstage(self.way.slot)
            if not self._beside.free:
                await asyncio.sleep(WORKER_AGAIN_S_MAX)
        await self.again.wait()

    async def _fetch(self, version: str) -> None:
        fetched = await fetched_into(self.way, self._shared, self._beside, version)
        times = fetched.seconds
        self._last_byte = (version, time.monotonic() - times.get("last_byte_to_done", 0.0))
        seconds = {"fetch": times.get("fetch", 0.0), "verify": times.get("last_byte_to_done", 0.0)}
        await self._change(lambda state, seen: after.fetched(state, seen.now, fetched.bytes, seconds))

    async def _stage(self, version: str, *, trial: bool) -> Outcome:
        """Have all live workers load it that have not."""
        way, load_s = self.way, self._shared.config.load_s
        release = await asyncio.to_thread(way.store.release, version) if trial else None
        wanted = Wanted(
            slot=way.slot,
            path=way.store.path(version),
            goldens=release.goldens if release is not None else (),
            trial=trial,
            limit_s=load_s + min(load_s, LATE_S) if trial else min(load_s, BACK_S),
        )
        return await self._beside.stage(wanted, in_place=way.slot.rollout.in_place or not trial)

    async def _load(self, move: Load) -> None:
        if not move.trial:
            self.way.show("rolling_back")
            outcome = await self._stage(move.version, trial=False)
            if outcome.how != "staged":
                log.warning(
                    "%s: back to %s without loading it first: %s", self.way.slot.name, move.version, outcome.reason
                )
            await self._advance(outcome.seconds)
            return
        await self._take_turn()
        self.way.show("loading")
        outcome = await self._stage(move.version, trial=True)
        if outcome.how != "staged":
            await self._unstaged(move.version, outcome)
        else:
            await self._advance(outcome.seconds, alone=outcome.alone)

    async def _unstaged(self, version: str, outcome: Outcome) -> None:
        """What a failure to load comes to: a blocked version, or another attempt."""
        match outcome.how:
            case "bad":
                await self._change(lambda state, _: after.took(state, outcome.seconds))
                await self._refuse(outcome.reason)
            case "crashed":
                changed = await self._change(lambda state, seen: after.crashed(state, seen.now, outcome.reason))
                if changed and version not in self.way.state.blocked:
                    await self._later(outcome.reason, most_s=WORKER_AGAIN_S_MAX)
            case "no_memory":
                await self._later(outcome.reason, WORKER_AGAIN_S_MAX, phase="staged")
            case _:
                await self._later(outcome.reason, phase="staged", most_s=WORKER_AGAIN_S_MAX)

    async def _share(self, move: Share) -> None:
        """Shadow or canary: whoever has it staged answers; a worker that comes later gets it too."""
        await self._take_turn()
        way, told = self.way, False
        what = "canary" if move.canary else "shadow"
        way.show(what)
        while way.left_s() > 0:
            outcome = await self._stage(move.version, trial=True)
            if outcome.how in ("bad", "crashed"):
                await self._unstaged(move.version, outcome)
                return
            way.show(what, outcome.reason)
            if outcome.how == "staged":
                await self._beside.share(way.slot, move.canary, move.shadow)
                if not told:
                    until = way.state.swap.until if way.state.swap else 0.0
                    await way.event(what, version=move.version, previous=way.current, until=until)
                    told = True
            await asyncio.sleep(min(TICK_S, way.left_s()))

    # -- turns --------------------------------------------------------------------------------------------------

    async def _take_turn(self) -> None:
        if not self._turn:
            if self._shared.turn.locked():
                self.way.show("loading", "another model is being swapped; one at a time")
            await self._shared.turn.acquire()
            self._turn = True

    def _yield_turn(self) -> None:
        if self._turn:
            self._turn = False
            self._shared.turn.release()
