"""One configured model in one worker: asleep, loading, ready, unloading; and who is using it.

Whoever has a job holds the model while it runs (`async with resident.use() as lane`), and waits when it is not loaded
or has no free slot. `replace` puts a new lane in the place of the old: whoever comes from then on gets the new one,
what runs ends on the old one, and the old one is freed when its last user has left. `take_over` does so with the lane
of another resident and all who use it: that is how a version that was loaded beside the first comes to serve. Knows
nothing of files or memory: whoever loads gives it lanes. What always holds: no lane is closed while somebody uses it,
at most `slots` use one at once, and whoever waits is served in the order of coming.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from copy import copy

from schemas.errors import Retryable, RoostError
from schemas.model import ModelState
from workers.host.lane import Lane

log = logging.getLogger("roost.resident")

PACE_WEIGHT = 0.2
"""Of the newest answer in the moving average of the pace."""
PACE_S_MIN = 0.05
"""An answer that came in less time says nothing about the pace."""


Freed = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    return


class _Seat:
    """One lane and how many use it. `owner` is told when one of them leaves."""

    def __init__(self, lane: Lane, freed: Freed, owner: Resident) -> None:
        self.lane = lane
        self.owner = owner
        self.freed = freed
        self.users = 0
        self.empty = asyncio.Event()
        self.empty.set()

    @property
    def full(self) -> bool:
        return self.users >= self.lane.backend.slots


class Withdrawn(Exception):
    """The job was cancelled while it waited for the model."""


class Gone(Retryable):
    """This lane is not to be had any more; the model has another one."""

    code = "model_unloaded"


class Resident:
    """See the module. `tasks` outlives it; `changed` is called after each change that somebody could want to see."""

    def __init__(
        self, name: str, tasks: asyncio.TaskGroup, *, wait_s: float = 600.0, changed: Callable[[], object] = bool
    ) -> None:
        self.name = name
        self.last_used = time.monotonic()
        self.ready_at = 0.0
        """Monotonic time since when the present lane serves."""
        self.version = ""
        """Of the lane that serves, or served last."""
        self.tokens = 0
        self.tokens_per_s = 0.0
        self._tasks = tasks
        self._wait_s = wait_s
        self._changed = changed
        self._seat: _Seat | None = None
        self._leaving: list[_Seat] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._queue: deque[tuple[str, asyncio.Future[_Seat]]] = deque()
        self._refusal: RoostError | None = None
        self._loading = 0
        self._resting = 0

    # -- for whoever has a job ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def use(self, request: str = "") -> AsyncIterator[Lane]:
        """Hold the lane while the job `request` runs.

        Raises what `refuse` was given, `Retryable` when loading takes too long, `Withdrawn` when the job is cancelled
        while it waits.
        """
        seat = await self._sit(request)
        try:
            yield seat.lane
        finally:
            seat.owner._leave(seat)

    def cancel(self, request: str) -> None:
        """Ask a job to end, on whichever lane it runs or while it waits for one."""
        for waiting in [entry for entry in self._queue if entry[0] == request]:
            self._queue.remove(waiting)
            waiting[1].set_exception(Withdrawn())
        for seat in (*self._leaving, *([self._seat] if self._seat else [])):
            seat.lane.cancel(request)

    def count(self, tokens: int, seconds: float) -> None:
        """An answer of so many tokens has taken so long to say."""
        self.tokens += tokens
        if tokens > 1 and seconds >= PACE_S_MIN:
            pace = tokens / seconds
            self.tokens_per_s += (pace - self.tokens_per_s) * (PACE_WEIGHT if self.tokens_per_s else 1.0)

    # -- what is to be known ------------------------------------------------------------------------------------

    @property
    def state(self) -> ModelState:
        if self._seat is not None:
            return "ready"
        return "loading" if self._loading else "unloading" if self._leaving else "asleep"

    @property
    def lane(self) -> Lane | None:
        """The lane that whoever comes now would get."""
        return self._seat.lane if self._seat else None

    @property
    def busy(self) -> int:
        """Jobs that run, on the lane of today and on those that are leaving."""
        return sum(seat.users for seat in self._leaving) + (self._seat.users if self._seat else 0)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Loaded, and nobody uses it."""
        return self._seat is not None and self._seat.users == 0

    @property
    def resting(self) -> bool:
        """It takes no new users, though it is loaded."""
        return self._resting > 0

    @property
    def wanted(self) -> bool:
        """Somebody waits, and there is nothing to wait for yet."""
        return bool(self._queue) and self._seat is None

    # -- for whoever loads --------------------------------------------------------------------------------------

    def replace(self, lane: Lane, freed: Freed = _nothing) -> Awaitable[None]:
        """Serve with `lane` from now on. What is returned may be awaited: then the old lane is closed and freed.

        `freed` is called when this lane has been closed.
        """
        return self._serve(_Seat(lane, freed, self))

    def take_over(self, other: Resident, *, supersede: bool = False) -> Awaitable[None]:
        """As `replace`, with the lane of `other`, which must have one; its users keep their seats.

        Whoever waits for `other` is told that it is `Gone`. `supersede`: what runs here and has not said anything yet
        is to begin anew.
        """
        seat, other._seat = other._seat, None
        assert seat is not None
        seat.owner = self
        if supersede and self._seat is not None:
            self._seat.lane.supersede()
        other.refuse(Gone(f"{self.name} serves it now"))
        return self._serve(seat)

    def _serve(self, seat: _Seat) -> Awaitable[None]:
        old, self._seat = self._seat, seat
        self._refusal = None
        self.version = seat.lane.version
        self.ready_at = self.last_used = time.monotonic()
        self._hand_out()
        return self._retire(old)

    def unload(self) -> Awaitable[None]:
        """Take no more users, and free the lane when the last one has left; whoever comes meanwhile waits.

        What is returned may be awaited: then the lane is closed and freed.
        """
        old, self._seat = self._seat, None
        return self._retire(old)

    async def settle(self) -> None:
        """Wait until every lane that was to go has gone."""
        while self._closing:
            await asyncio.wait(self._closing)

    def refuse(self, error: RoostError | None) -> None:
        """Answer everybody who waits, and whoever comes until the next `replace`, with `error`; None takes it back."""
        self._refusal = error
        if error is not None:
            self.fail(error)

    def fail(self, error: RoostError) -> None:
        """Answer those who wait now with `error`."""
        while self._queue:
            self._queue.popleft()[1].set_exception(copy(error))
        self._changed()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Somebody is at it."""
        self._loading += 1
        self._changed()
        try:
            yield
        finally:
            self._loading -= 1
            self._changed()

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Take no new users meanwhile, so that this model becomes idle: another has its turn."""
        self._resting += 1
        try:
            yield
        finally:
            self._resting -= 1
            self._hand_out()

    # -- inside -------------------------------------------------------------------------------------------------

    async def _sit(self, request: str) -> _Seat:
        if self._refusal is not None:
            raise copy(self._refusal)
        future: asyncio.Future[_Seat] = asyncio.get_running_loop().create_future()
        entry = (request, future)
        self._queue.append(entry)
        self._hand_out()
        if not future.done() and self._seat is None:
            self._changed()
        try:
            while not future.done():
                await asyncio.wait({future}, timeout=self._wait_s)
                if not future.done() and (self._seat is None or self._resting):
                    self._queue.remove(entry)
                    future.set_exception(self._too_late())
            return future.result()
        except BaseException:
            if entry in self._queue:
                self._queue.remove(entry)
            elif future.exception() is None:  # cancelled with the seat in hand
                future.result().owner._leave(future.result())
            raise

    def _too_late(self) -> Retryable:
        return Retryable(f"{self.name} was not loaded within {self._wait_s:.0f} s", code="model_not_loaded")

    def _hand_out(self) -> None:
        """Seat those who wait, first come first served, while there are free slots."""
        seat = self._seat
        while self._queue and seat is not None and not seat.full and not self._resting:
            seat.users += 1
            seat.empty.clear()
            self._queue.popleft()[1].set_result(seat)

    def _leave(self, seat: _Seat) -> None:
        seat.users -= 1
        self.last_used = time.monotonic()
        self._hand_out()
        if seat.users == 0:
            seat.empty.set()
            self._changed()

    def _retire(self, seat: _Seat | None) -> Awaitable[None]:
        """Close a lane after its last user, in a task that nobody's impatience can end."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if seat is None:
            done.set_result(None)
            self._changed()
            return done
        self._leaving.append(seat)
        closing = self._tasks.create_task(self._close(seat))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._changed()
        return asyncio.shield(closing)

    async def _close(self, seat: _Seat) -> None:
        await seat.empty.wait()
        try:
            try:
                await seat.lane.close()
            finally:
                await seat.freed()
        except Exception:
            log.exception("%s: its backend cannot be closed properly", self.name)
        finally:
            self._leaving.remove(seat)
            self._changed()
