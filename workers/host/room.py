"""Makes room for a model: measures, asks `memory.plan`, unloads idle models, waits for busy ones. One per worker.

What always holds: no lane is loaded without a grant, and every grant counts until its lane is closed; a busy model is
never taken its memory, but when its turn is over it gets no new users until the one that waits has had its own; every
wait has an end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack

from schemas.config import ModelConfig, WorkerConfig
from schemas.errors import Retryable
from workers import Demand
from workers.host.budget import Memory, measure
from workers.host.lane import Lane
from workers.host.memory import Budget, Held, plan
from workers.host.resident import Resident

log = logging.getLogger("roost.room")

TURN_S = 2.0
"""A loaded model serves at least this long, and twice as long as it took to load, before a busy one must make way."""
LOOK_S = 1.0
"""How often to look whether other programs have left memory."""


class NoRoom(Retryable):
    """It does not fit now, or `never` under these settings; the sentence has the figures."""

    code = "no_memory"

    def __init__(self, message: str, *, never: bool = False) -> None:
        super().__init__(message, after_s=2.0)
        self.never = never


class Grant:
    """Memory promised to one lane of one model."""

    def __init__(self, room: Room, resident: Resident, lane: Lane, demand: Demand, paged: int) -> None:
        self.demand = demand
        self.paged = paged
        self.load_s = 0.0
        self.pending = True
        self.lane = lane
        self.resident = resident
        """Who has the lane; it may be handed on."""
        self._room = room

    def loaded(self, load_s: float) -> None:
        """The lane has taken its memory."""
        self.pending, self.load_s = False, load_s

    def give_back(self) -> None:
        self._room.forget(self)

    def held(self, now: float) -> Held:
        """This grant as the planner sees it: only a lane that serves and that nobody uses is idle."""
        resident = self.resident
        return Held(
            name=resident.name,
            demand=self.demand,
            busy=self.pending or resident.lane is not self.lane or not resident.idle,
            pending=self.pending,
            waiting=resident.waiting,
            idle_s=max(0.0, now - resident.last_used),
            load_s=self.load_s,
        )

    def turn_left_s(self, now: float, turn_s: float) -> float:
        """Seconds until its turn is over."""
        return max(0.0, self.resident.ready_at + max(turn_s, 2 * self.load_s) - now)


class Room:
    """The memory of one worker."""

    def __init__(self, config: WorkerConfig, look: Callable[[], Memory] = measure, *, turn_s: float = TURN_S) -> None:
        self.config = config
        self._turn_s = turn_s
        self._look = look
        self._grants: list[Grant] = []
        self._changed = asyncio.Event()
        self.in_turn = asyncio.Lock()
        """Models that nobody waits for get what is free in the order in which they ask."""

    def poke(self) -> None:
        """Something has changed: a user left, a lane was closed."""
        self._changed.set()
        self._changed = asyncio.Event()

    def forget(self, grant: Grant) -> None:
        if grant in self._grants:
            self._grants.remove(grant)
        self.poke()

    @property
    def loading(self) -> int:
        """Lanes that are being loaded now."""
        return sum(grant.pending for grant in self._grants)

    def look(self) -> Memory:
        """What there is now."""
        return self._look()

    def limit(self, model: ModelConfig) -> int:
        """The most that a model may choose to take."""
        memory = self._look()
        obtainable = memory.free + sum(g.demand.least for g in self._grants if not g.pending)
        return min(self._allowed(model, memory), obtainable)

    def _allowed(self, model: ModelConfig, memory: Memory) -> int:
        whole = memory.share(self.config.memory)
        return min(whole, memory.share(model.memory)) if model.memory is not None else whole

    async def take(
        self,
        resident: Resident,
        model: ModelConfig,
        lane: Lane,
        demand: Demand,
        *,
        evict: bool,
        wait_s: float,
        given_up: Callable[[], bool] = bool,
    ) -> Grant:
        """Make room for `lane` and promise it; without `evict` only what is free now. Raises `NoRoom`."""
        memory = self._look()
        own = Budget(whole=self._allowed(model, memory), free=memory.whole, overcommit=self.config.overcommit)
        if model.memory is not None and (alone := plan(own, (), demand)).refuse:
            raise NoRoom(f"{alone.refuse}; models[].memory is {model.memory}", never=True)
        paged = await self._fit(demand, evict=evict, wait_s=wait_s, given_up=given_up)
        grant = Grant(self, resident, lane, demand, paged)
        self._grants.append(grant)
        return grant

    async def shrink(self, wait_s: float) -> None:
        """Unload until what is loaded is within a budget that has become smaller."""
        try:
            await self._fit(None, evict=True, wait_s=wait_s, given_up=bool)
        except NoRoom as error:
            log.warning("the smaller budget is exceeded: %s", error.message)

    async def _fit(self, demand: Demand | None, *, evict: bool, wait_s: float, given_up: Callable[[], bool]) -> int:
        """Unload and wait until `demand` fits; returns what of it will be paged. Awaits nothing after its last look."""
        deadline = time.monotonic() + wait_s
        resting: set[Resident] = set()
        with ExitStack() as rests:
            while True:
                now = time.monotonic()
                held = {id(h): (h, g) for g in self._grants for h in (g.held(now),)}
                found = plan(self._look().budget(self.config), [h for h, _ in held.values()], demand, evict=evict)
                if not found.refuse and not found.unload:
                    return found.paged
                if found.unload:
                    going = [held[id(h)][1] for h in found.unload]
                    log.info("unloading %s to make room", ", ".join(g.resident.name for g in going))
                    await asyncio.gather(*(g.resident.unload() for g in going))
                    continue
                if not found.wait_for or now >= deadline or given_up():
                    raise NoRoom(found.refuse, never=found.never)
                busy = [held[id(h)][1] for h in found.wait_for]
                for grant in busy:
                    if grant.turn_left_s(now, self._turn_s) == 0 and grant.resident not in resting:
                        resting.add(grant.resident)
                        rests.enter_context(grant.resident.rest())
                turns = [left for g in busy if (left := g.turn_left_s(now, self._turn_s)) > 0]
                await self._wait(min(LOOK_S, deadline - now, *turns))

    async def _wait(self, seconds: float) -> None:
        changed = self._changed
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            pass
