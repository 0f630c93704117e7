"""One version on its way to serve: tried, loaded beside the lane that serves, warmed, asked, held until it is wanted.

What always holds: the lane that serves is left alone, unless the operator has allowed that it makes room; whatever goes
wrong is told with its code and everything is given back; nothing here waits for what may never end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from schemas.errors import ConfigError, RoostError, Untrusted
from schemas.model import GoldenAnswer, ModelOrder, ModelTold
from workers.host import golden
from workers.host.load import Loaded, load
from workers.host.priority import CAN_LOWER, brisk
from workers.host.resident import Gone, Resident
from workers.host.room import NoRoom
from workers.host.shadow import Shadow
from workers.host.shared import Shared
from workers.host.slot import Files
from workers.host.trials import BadModel

log = logging.getLogger("roost.stage")

LOAD_S = 600.0
"""For a trial, a load and the golden prompts together, where `updates` does not say."""
TRIAL_SHARE = 0.5
"""Of that time for the trial, which loads less than what then serves."""
QUIET = 0.5
"""Share of the machine for a lane that nobody waits for, where its threads cannot be lowered."""
END_S = 10.0
"""How long to wait for a load that is given up; it cannot be interrupted, and goes on to its end by itself."""


class _Beside(Resident):
    """A lane that nobody loads again once it has gone: whoever wants it is told."""

    def unload(self) -> Awaitable[None]:
        self.refuse(Gone(f"{self.name}: this version has been taken back"))
        return super().unload()


class Candidate:
    """See the module. `begin` starts it, `ended` tells how it went, `drop` gives it up.

    `make_room` frees the lane that serves; `changed` is called when there is something to be seen.
    """

    def __init__(
        self,
        shared: Shared,
        files: Files,
        place: str,
        order: ModelOrder,
        make_room: Callable[[], Awaitable[None]],
        changed: Callable[[], object],
    ) -> None:
        self.files = files
        self.loaded: Loaded | None = None
        self.ready = False
        """It has answered the golden prompts, and may serve."""
        self.holds = False
        """The lane that served has made room for it: nobody serves until it does, or has gone."""
        self.canary = 0
        self.resident = _Beside(files.model.name, shared.tasks, changed=self._moved)
        self.shadow: Shadow | None = None
        self._shared = shared
        self._place = place
        self._order = order
        self._make_room = make_room
        self._changed = changed
        self._seconds: dict[str, float] = {}
        self._loading: asyncio.Task[Exception | None] | None = None
        self._work: asyncio.Task[ModelTold] | None = None

    @property
    def version(self) -> str:
        return self.loaded.lane.version if self.loaded is not None and self.resident.lane is not None else ""

    @property
    def failed(self) -> bool:
        """It ended without success, or its memory was wanted by another model."""
        return self._work is not None and self._work.done() and not (self.ready and self.resident.lane is not None)

    def begin(self) -> None:
        self._work = self._shared.tasks.create_task(self._run())

    async def ended(self) -> ModelTold:
        """How it went, as soon as that is known; raises `Gone` when it was given up meanwhile."""
        assert self._work is not None
        await asyncio.wait({self._work})
        if self._work.cancelled():
            raise Gone(f"another version of {self.files.model.name} has taken its place, or its settings have changed")
        return self._work.result()

    async def drop(self) -> None:
        """Give it up, and what it has taken back; a load under way is waited for, but not for ever."""
        self.ready = False
        if self._work is not None and self._work is not asyncio.current_task():
            self._work.cancel()
            await asyncio.wait({self._work})
        await self._give_up()

    def to_front(self) -> None:
        """People wait for its answers from now on."""
        assert self.loaded is not None
        self.loaded.lane.to_front()
        self.loaded.lane.backend.ease(self._shared.level())

    # -- steps --------------------------------------------------------------------------------------------------

    async def _run(self) -> ModelTold:
        """All steps; never raises but when it is cancelled."""
        updates = self._shared.bus.config.updates
        limit_s = updates.load_s if updates is not None else LOAD_S
        try:
            with brisk():
                async with asyncio.timeout(limit_s):
                    answers = await self._steps(TRIAL_SHARE * limit_s)
        except TimeoutError:
            return await self._failed("bad_model", f"it was not ready within {limit_s:g} s")
        except (BadModel, Untrusted, ConfigError) as error:
            return await self._failed("bad_model", error.message)
        except RoostError as error:
            return await self._failed("no_memory" if isinstance(error, NoRoom) else "unavailable", error.message)
        except MemoryError:
            return await self._failed("no_memory", "the machine has not enough memory for it beside the other")
        except Exception as error:
            log.exception("%s: it cannot be staged", self._place)
            return await self._failed("bad_model", f"{type(error).__name__}: {error}")
        self.ready = True
        self._changed()
        return self._told(f"{self.version} is ready beside the version that serves", answers)

    async def _steps(self, trial_s: float) -> tuple[GoldenAnswer, ...]:
        try:
            await self._try(trial_s)
            await self._load(evict=False)
        except NoRoom as error:
            if not self._order.in_place or error.never:
                raise
            log.info("%s: the version that serves makes room; requests wait meanwhile", self._place)
            self.holds = True
            await self._make_room()
            if "trial" not in self._seconds:
                await self._try(trial_s)
            await self._load(evict=True)
        assert self.loaded is not None
        begun = time.monotonic()
        answers = await golden.ask(self.resident, self._order.goldens)
        self._seconds["golden"] = time.monotonic() - begun
        return answers

    async def _try(self, trial_s: float) -> None:
        if not self._order.trial:
            return
        room, model = self._shared.room, self.files.model
        self._seconds["trial"] = await self._shared.trials.run(
            self.files, self._place, room.look(), limit=room.limit(model), wait_s=trial_s
        )

    async def _load(self, *, evict: bool) -> None:
        """In a task of its own, because a load that hangs must not hold up whoever waits for it."""
        begun = time.monotonic()
        self._loading = self._shared.tasks.create_task(self._loaded(evict=evict))
        await asyncio.wait({self._loading})
        if (error := self._loading.result()) is not None:
            raise error
        assert self.loaded is not None
        self._seconds["warm"] = self.loaded.lane.warm_s
        self._seconds["load"] = time.monotonic() - begun - self.loaded.lane.warm_s

    async def _loaded(self, *, evict: bool) -> Exception | None:
        shared = self._shared
        try:
            loaded = await load(
                self.files,
                self._place,
                self.resident,
                shared.room,
                shared.scratch,
                evict=evict,
                wait_s=shared.bus.config.limits.outage_s,
                given_up=bool,
                quiet=True,
            )
        except Exception as error:  # noqa: BLE001  whoever waits for the load gets it
            return error
        if not CAN_LOWER:
            loaded.lane.backend.ease(QUIET)
        self.loaded = loaded
        self.resident.replace(loaded.lane, loaded.freed)
        model = self.files.model
        self.shadow = Shadow(shared.bus, shared.worker, model, self.resident, shared.tasks)
        return None

    def _told(self, text: str, answers: tuple[GoldenAnswer, ...] = (), *, code: str = "") -> ModelTold:
        return ModelTold(
            model=self.files.model.name,
            worker=self._shared.worker,
            text=text,
            ok=not code,
            code=code,
            version=self.version,
            answers=answers,
            seconds={stage: round(s, 4) for stage, s in self._seconds.items()},
        )

    async def _failed(self, code: str, text: str) -> ModelTold:
        log.warning("%s: %s", self._place, text)
        told = self._told(text, code=code)
        await self._give_up()
        return told

    async def _give_up(self) -> None:
        """Give everything back; waits for what ends soon."""
        if self.shadow is not None:
            await self.shadow.stop()
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.wait({self._loading}, timeout=END_S)
        freed = asyncio.ensure_future(self.resident.unload())
        await asyncio.wait({freed}, timeout=END_S)
        self.holds = False
        self._changed()

    def _moved(self) -> None:
        self._shared.room.poke()
        self._changed()
