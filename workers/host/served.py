"""One name of `models[]` in one worker, from the first configuration that has it on: brings what runs to what is
configured, one step at a time.

What always holds: changed settings are tried beside the lane that serves, and what cannot be loaded leaves that one in
place with the reason in its row; a model that is asleep is loaded by its first request; the queue is consumed unless
the model's file or backend is absent or broken (its messages wait then, ADR 10); nothing that goes wrong here touches
another model.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from msgspec.structs import replace

from schemas.config import ModelConfig
from schemas.errors import Disconnected, Rejected, RoostError
from schemas.model import ModelOrder, ModelStatus, ModelTold
from workers import Backend
from workers.host.orders import Orders
from workers.host.resident import Gone
from workers.host.serving import Serving
from workers.host.shared import Shared
from workers.host.slot import LIGHT, files_of
from workers.host.standing import STILL_S

log = logging.getLogger("roost.models")

LOOK_AGAIN_S = 5.0


class Served:
    """See the module. `want` says what is to be; `run` brings it about until `stop`."""

    def __init__(self, shared: Shared, name: str) -> None:
        self.name = name
        self.settled = asyncio.Event()
        """The first step is done: ready, asleep, absent or failed."""
        self._shared = shared
        self._wake = asyncio.Event()
        self.serving = Serving(shared, name, self._given_up, self._wake.set)
        self.resident, self.stage = self.serving.resident, self.serving.stage
        self.intake, self.loop = self.serving.intake, self.serving.loop
        self._standing = self.serving.standing
        self._wanted: ModelConfig | None = None
        self._news = True
        """What is wanted has not been looked at yet."""
        self._orders = Orders()
        self._stopping = False

    def _given_up(self) -> bool:
        """What is being loaded is wanted no more, or in another way."""
        return self._news or self._stopping

    # -- from outside -------------------------------------------------------------------------------------------

    def want(self, model: ModelConfig | None, place: str, *, again: bool = False) -> None:
        """From now on it is to be like this; None: it has been removed from the configuration.

        `again`: look at it once more though it is the same, because there is more or less memory.
        """
        self._news = self._news or again or model != self._wanted
        self._wanted, self.serving.place = model, place
        self._wake.set()
        self._shared.room.poke()  # whoever waits for memory for the old settings looks up

    async def order(self, order: ModelOrder) -> ModelTold:
        """Do it by hand; returns how it went. Raises `RoostError` when it did not succeed."""
        model = self._known()
        if order.do == "prepare":
            await self._shared.trials.prepare(model.type)
            return self._told("a process for its trial is ready")
        if order.do == "stage":
            return await self.stage.stage(order, model, self.serving.place)
        if order.do == "share":
            return self.stage.share(order)
        if order.do == "unstage":
            await self.stage.clear()
            self._wake.set()
            return self._told("nothing is staged")
        if order.do == "look":
            with contextlib.suppress(Gone):
                await self.stage.settled(await asyncio.to_thread(files_of, model))
        return await self._orders.give(order, self._wake.set)

    def row(self) -> ModelStatus | None:
        """Its row in MODELS; None when it is none of ours any more."""
        return self.serving.row()

    @property
    def backends(self) -> list[Backend]:
        """Those that people wait for."""
        serving = [self.resident.lane.backend] if self.resident.lane is not None else []
        return [*serving, *self.stage.backends]

    def stop(self) -> None:
        """Take no more messages, finish or give back what is in hand, free the lane; then `run` returns."""
        self._stopping = self.serving.stopping = True
        self.intake.stop()
        self._wake.set()
        self._shared.room.poke()

    async def run(self) -> None:
        """Until `stop`."""
        try:
            while not self._stopping:
                self._wake.clear()
                while not self._stopping and await self._step():
                    self.serving.tell()
                self.settled.set()
                try:
                    async with asyncio.timeout(self._timer_s()):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            self.settled.set()
            self._orders.close()
            if self.resident.lane is None:
                self.resident.fail(Disconnected("the worker is stopping"))
            await self.intake.shut()
            await self.stage.clear()
            self.resident.unload()
            await self.resident.settle()

    # -- steps --------------------------------------------------------------------------------------------------

    async def _step(self) -> bool:
        """Do the next thing that is due; False when nothing is."""
        if self._news:
            self._news = False
            await self._change()
        elif self._orders:
            await self._orders.obey(self._carry_out)
        elif self.stage.left_s == 0:
            await self.stage.clear()
        elif self.stage.holds:
            return False
        elif self._due() and self.serving.model is not None and not self._standing.trouble:
            self.serving.restore = False
            await self.serving.load(evict=True)
        elif self._idle_left_s() == 0:
            log.info("%s: nobody has asked for it for some time", self.name)
            await self.serving.unload()
        elif self._looks() and time.monotonic() >= self._standing.look_at:
            await self._look_again()
        else:
            return False
        return True

    def _due(self) -> bool:
        """It is to be loaded now."""
        return self.resident.wanted or (self.serving.restore and self.resident.lane is None)

    async def _change(self) -> None:
        """Make what is wanted so."""
        new, old = self._wanted, self.serving.model
        self.serving.awaited = None
        if new is None:
            await self._remove()
            return
        light = old is not None and replace(old, **{name: getattr(new, name) for name in LIGHT}) == new
        if not light:
            await self.stage.clear()
        if light and (self.resident.lane is not None or self.stage.holds):
            self.serving.adopt(new)
        elif self.resident.lane is None or old is None:
            begin = old is None or self._standing.wrong or self.serving.restore
            self.serving.adopt(new)
            await self.serving.begin(now=begin and new.warm_up)
        else:
            await self.serving.reload(new)

    async def _remove(self) -> None:
        """The operator has taken it out: what runs is finished, whoever waits or comes yet is told."""
        self.serving.model, self._standing.trouble, self._standing.refusing = None, "", True
        told = RoostError(
            f"the model {self.name} has been removed from the configuration; ask another one, or send the message "
            "again with `roost dead requeue` when it is back",
            code="model_removed",
        )
        self.resident.refuse(told)
        await self.stage.clear()
        self.resident.unload()
        await self.serving.event("unloaded", "removed from the configuration")
        await self._look_again()

    def _looks(self) -> bool:
        """There is something to look at now and then."""
        return self.serving.awaited is not None or self._standing.refusing

    async def _look_again(self) -> None:
        """Is a missing file there now? Where there is no model to be had: does another worker serve it?"""
        awaited = self.serving.awaited
        come = awaited is not None and await awaited.come()
        soon = awaited is not None and awaited.soon
        self._standing.look_at = time.monotonic() + (STILL_S if soon else LOOK_AGAIN_S)
        if come:
            await self._change()
        elif self._standing.refusing and await self._shared.report.others(self.name):
            await self.intake.shut()
        elif self._standing.refusing:
            self.serving.open()

    # -- by hand ------------------------------------------------------------------------------------------------

    async def _carry_out(self, order: ModelOrder) -> ModelTold:
        model = self._known()
        if order.do == "unload":
            if self.resident.lane is None:
                return self._told("is not loaded")
            await self.serving.unload()
            return self._told("is unloaded; the next request loads it again")
        before = self.resident.version
        if order.do == "look":
            await self._look(model)
        elif self.resident.lane is None:
            await self.serving.wake_up(model)
        elif (error := await self.serving.reload(self._wanted or model)) is not None:
            raise error
        if self.resident.lane is None:
            return self._told("is not loaded; the next request loads it")
        after = self.resident.version
        return self._told(f"is loaded, version {after}" + (f" (before: {before})" if before not in ("", after) else ""))

    async def _look(self, model: ModelConfig) -> None:
        """Serve what the links name now."""
        files = await asyncio.to_thread(files_of, model)
        candidate = await self.stage.take(files)
        if candidate is not None:
            await self.serving.switch(candidate, model)
        elif self.resident.lane is None:
            if self.serving.restore or self._standing.trouble:
                await self.stage.clear()
                await self.serving.wake_up(model)
        elif files == self.serving.files:
            self.serving.adopt(model)  # what was wrong with another version counts no more
        elif (error := await self.serving.reload(self._wanted or model)) is not None:
            raise error

    def _known(self) -> ModelConfig:
        if self.serving.model is None:
            raise Rejected(f"there is no model {self.name!r}", code="unknown_model")
        return self.serving.model

    # -- what it tells ------------------------------------------------------------------------------------------

    def _told(self, text: str) -> ModelTold:
        version = self.resident.version if self.resident.lane is not None else ""
        return ModelTold(model=self.name, worker=self._shared.worker, text=text, version=version)

    # -- time ---------------------------------------------------------------------------------------------------

    def _timer_s(self) -> float | None:
        """When to look again though nothing has happened."""
        times = [self._idle_left_s(), self.stage.left_s]
        if self._looks():
            times.append(self._standing.look_at - time.monotonic())
        return min((max(0.05, left) for left in times if left is not None), default=None)

    def _idle_left_s(self) -> float | None:
        """Seconds until it has been idle for too long; None where that does not count."""
        after_s = self._shared.room.config.unload_after_s
        if after_s is None or self.resident.lane is None:
            return None
        if not self.resident.idle or self.resident.waiting:
            return after_s
        return max(0.0, self.resident.last_used + after_s - time.monotonic())
