"""The lane of one model in one worker: how it is loaded, replaced and given up, and what is told of it.

`served` says when; this file does it. What always holds: changed settings are tried beside the lane that serves, and
what cannot be loaded leaves that one in place with the reason in its row; nothing that goes wrong here touches another
model.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec.structs import replace

from schemas.config import ModelConfig
from schemas.errors import ConfigError, Rejected, Retryable, RoostError
from schemas.model import ModelEvent, ModelStatus
from workers.host.candidate import Candidate
from workers.host.intake import Intake
from workers.host.load import Loaded, load
from workers.host.loop import ModelLoop
from workers.host.registry import backend_of
from workers.host.resident import Resident
from workers.host.room import NoRoom
from workers.host.shared import Shared
from workers.host.slot import Files, files_of
from workers.host.stage import Stage
from workers.host.standing import Awaited, Standing, awaited

log = logging.getLogger("roost.models")


class Serving:
    """See the module. `given_up`: other settings have come, or the worker stops; `wake`: there is something to do."""

    def __init__(self, shared: Shared, name: str, given_up: Callable[[], bool], wake: Callable[[], object]) -> None:
        self.name = name
        self.place = ""
        """Where the model stands in the configuration, for messages."""
        self.model: ModelConfig | None = None
        """The settings in effect; None before the first step and once it has been removed."""
        wait_s = shared.bus.config.limits.outage_s
        self.resident = Resident(name, shared.tasks, wait_s=wait_s, changed=self._changed)
        self.stage = Stage(shared, self._make_room, self._changed)
        self.loop = ModelLoop(
            shared.bus,
            shared.sessions,
            shared.worker,
            ModelConfig(name=name, type=""),
            self.resident,
            shared.at_work,
            beside=self.stage,
        )
        self.intake = Intake(shared.bus, name, self.loop, shared.tasks)
        self.standing = Standing(name, shared.worker)
        self.files: Files | None = None
        """What the lane that serves was made of."""
        self.restore = False
        """The lane that served has made room for another version, and is to come back if that does not serve."""
        self.awaited: Awaited | None = None
        """The file that is wanted is not there yet."""
        self.stopping = False
        self._shared = shared
        self._given_up = given_up
        self._wake = wake

    def adopt(self, model: ModelConfig) -> None:
        self.model = self.loop.model = model
        standing = self.standing
        standing.trouble, standing.refusing = "", False
        standing.reason = standing.warning if self.resident.lane is not None else ""
        self.resident.refuse(None)

    async def begin(self, *, now: bool) -> None:
        """Nothing is loaded: load `now` where there is room, or at the first request."""
        assert self.model is not None
        try:
            self.standing.learn(backend_of(self.model, self.place))
        except ConfigError as error:
            await self.give_up("absent", error.message)
            return
        if now:
            await self.load(evict=False)
        else:
            self.open()

    async def load(self, *, evict: bool) -> None:
        """Load the model as it is configured; what goes wrong is told in its row and to whoever waits."""
        assert self.model is not None
        self.standing.reason = ""
        try:
            loaded = await self._lane(self.model, evict=evict)
        except NoRoom as error:
            await self.no_room(error, asked=evict)
        except ConfigError as error:
            await self.give_up("absent", error.message)
        except RoostError as error:
            await self.give_up("failed", error.message)
        except Exception as error:
            log.exception("%s: loading failed", self.place)
            await self.give_up("failed", f"{type(error).__name__}: {error}")
        else:
            await self.serve(loaded)

    async def _lane(self, model: ModelConfig, *, evict: bool) -> Loaded:
        shared = self._shared
        with self.resident.loading():
            return await load(
                await asyncio.to_thread(files_of, model),
                self.place,
                self.resident,
                shared.room,
                shared.scratch,
                evict=evict,
                wait_s=shared.bus.config.limits.outage_s,
                given_up=self._given_up,
            )

    async def serve(self, loaded: Loaded) -> None:
        """Put a new lane in its place. The old one goes when its last user has left; nobody waits for that."""
        self.resident.replace(loaded.lane, loaded.freed)
        await self._serves(loaded)

    async def _serves(self, loaded: Loaded) -> None:
        """A new lane is in its place."""
        standing = self.standing
        standing.trouble, standing.refusing, standing.warning = "", False, loaded.warning
        standing.reason = loaded.warning
        standing.learn(loaded.lane.backend, loaded.lane.version)
        standing.facts = replace(standing.facts, memory_bytes=loaded.grant.demand.total, load_s=round(loaded.load_s, 3))
        self.files, self.restore, self.awaited = loaded.files, False, None
        self.open()
        self.tell()
        await self.event("loaded")

    async def reload(self, new: ModelConfig) -> RoostError | None:
        """Load `new` beside the lane that serves, or in its place; returns why the old settings stay, if they do."""
        try:
            try:
                loaded = await self._lane(new, evict=False)
            except NoRoom as error:
                if error.never:
                    raise
                log.info("%s: no room beside the old one; requests wait meanwhile", self.place)
                await self.resident.unload()
                loaded = await self._lane(new, evict=True)
        except Exception as error:
            if self._given_up():  # other settings have come while these waited for memory
                return None
            why = error if isinstance(error, RoostError) else RoostError(f"{type(error).__name__}: {error}")
            log.warning("%s: the old settings stay: %s", self.place, why.message, exc_info=why is not error)
            if self.resident.lane is None:
                await self.load(evict=True)
            self.standing.reason = f"the changed settings are not in use: {why.message}"
            self.awaited = await awaited(new)
            await self.event("failed", why.message)
            return why
        self.adopt(new)
        await self.serve(loaded)
        return None

    def open(self) -> None:
        if not self.stopping:
            self.intake.open(self.standing.facts.slots or 1)

    async def unload(self) -> None:
        await self.resident.unload()
        await self.event("unloaded")

    async def switch(self, candidate: Candidate, model: ModelConfig) -> None:
        """The version beside the one that serves takes its place, with all that it has computed."""
        assert candidate.loaded is not None
        candidate.to_front()
        candidate.loaded.grant.resident = self.resident
        self.adopt(model)
        self.resident.take_over(candidate.resident, supersede=model.rollout.running == "requeue")
        await self._serves(candidate.loaded)

    async def wake_up(self, model: ModelConfig) -> None:
        """Load it now; raises `Retryable` when that does not succeed."""
        self.adopt(model)
        await self.load(evict=True)
        if self.resident.lane is None:
            raise Retryable(self.standing.reason or "it is being changed; try again", code="model_unavailable")

    async def _make_room(self) -> None:
        """Free the lane that serves, for another version; whoever comes waits."""
        self.restore = self.resident.lane is not None
        await self.resident.unload()

    # -- when it cannot be had ----------------------------------------------------------------------------------

    async def no_room(self, error: NoRoom, *, asked: bool) -> None:
        if self._given_up():  # whoever waits goes on waiting for the newer settings
            return
        log.warning("%s: %s", self.place, error.message)
        standing = self.standing
        if error.never:
            standing.trouble, standing.reason, standing.refusing = "failed", error.message, True
            self.resident.refuse(Rejected(f"{self.name} cannot be loaded: {error.message}", code="no_memory"))
            standing.look_at = 0.0  # does another worker serve it?
            await self.event("failed", error.message)
            return
        standing.reason = error.message if asked else f"loaded when it is asked for: {error.message}"
        self.resident.fail(error)
        self.open()

    async def give_up(self, trouble: Literal["absent", "failed"], reason: str) -> None:
        """Its file or its backend is not there, or broken: messages wait for another worker, or for the operator."""
        self.standing.trouble, self.standing.reason = trouble, reason
        self.awaited = await awaited(self.model) if trouble == "absent" else None
        log.warning("%s: %s", self.place, reason)
        self.resident.fail(Retryable(reason, after_s=2.0, code="model_unavailable"))
        await self.intake.shut()
        if trouble == "failed":
            await self.event("failed", reason)

    # -- what it tells ------------------------------------------------------------------------------------------

    def row(self) -> ModelStatus | None:
        """Its row in MODELS; None when it is none of ours any more."""
        if self.model is None:
            return None
        return self.standing.row(self.model, self.resident, self.stage.version)

    def _changed(self) -> None:
        self._shared.room.poke()
        if self.resident.wanted or self.stage.left_s is not None or self.restore:
            self._wake()
        self.tell()

    def tell(self) -> None:
        """Have the row rewritten when more than its counts has changed."""
        if self.standing.news(self.row()):
            self._wake()
            self._shared.report.poke()

    async def event(self, what: str, reason: str = "") -> None:
        event = {"model": self.name, "what": what, "at": time.time(), "version": self.resident.version}
        body = msgspec.convert({**event, "reason": reason}, ModelEvent)
        await self._shared.bus.event("model", self.name, what, body=body)
