"""The version of one model that is being made ready beside the one that serves: at most one at a time.

It says which requests the new version answers (`pick`), gives it copies of others (`heard`), and hands it over when the
links name it (`take`). What always holds: the same order twice is carried out once; another one takes its place.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from schemas.config import ModelConfig
from schemas.errors import Rejected, Retryable
from schemas.message import Inbound, Outbound
from schemas.model import ModelOrder, ModelTold
from schemas.session import Entry
from workers import Backend
from workers.host.canary import goes_new
from workers.host.candidate import Candidate
from workers.host.resident import Resident
from workers.host.shared import Shared
from workers.host.slot import Files, files_of

HELD_S = 60.0
"""A version for which the other one has made room must serve within this, or the other one comes back."""


class Stage:
    """See the module. `make_room` frees the lane that serves; `changed` is called when there is something to see."""

    def __init__(
        self,
        shared: Shared,
        make_room: Callable[[], Awaitable[None]],
        changed: Callable[[], object],
        *,
        held_s: float = HELD_S,
    ) -> None:
        self._shared = shared
        self._make_room = make_room
        self._changed = changed
        self._held_s = held_s
        self._ready_at = 0.0
        self._candidate: Candidate | None = None
        self._turn = asyncio.Lock()

    # -- orders -------------------------------------------------------------------------------------------------

    async def stage(self, order: ModelOrder, model: ModelConfig, place: str) -> ModelTold:
        """Make ready what `order.link` is to name; how that went is told once it is ready, and again when asked."""
        files = await asyncio.to_thread(files_of, _linked(model, order))
        async with self._turn:
            candidate = self._candidate
            if candidate is None or candidate.files != files or candidate.failed:
                await self._clear()
                candidate = Candidate(self._shared, files, place, order, self._make_room, self._changed)
                self._candidate = candidate
                candidate.begin()
        told = await candidate.ended()
        self._ready_at = time.monotonic()
        self._changed()
        return told

    def share(self, order: ModelOrder) -> ModelTold:
        """Give the new version its share of the requests; raises `Retryable` when there is none."""
        candidate = self._candidate
        if candidate is None or not candidate.ready or candidate.shadow is None or not candidate.version:
            raise Retryable(f"no version of {order.model} is staged", code="unavailable")
        if order.canary:
            candidate.to_front()
        candidate.canary, candidate.shadow.percent = order.canary, order.shadow
        self._ready_at = time.monotonic()
        return ModelTold(
            model=order.model,
            worker=self._shared.worker,
            text=f"{candidate.version} answers {order.canary} % of new conversations, {order.shadow} % in the shadow",
            version=candidate.version,
        )

    async def clear(self) -> None:
        """Give up what is staged."""
        async with self._turn:
            await self._clear()

    async def _clear(self) -> None:
        candidate, self._candidate = self._candidate, None
        if candidate is not None:
            await candidate.drop()

    # -- for whoever serves -------------------------------------------------------------------------------------

    async def settled(self, files: Files) -> None:
        """Wait for these files if they are being made ready just now."""
        candidate = self._candidate
        if candidate is not None and candidate.files == files:
            await candidate.ended()

    async def take(self, files: Files) -> Candidate | None:
        """What was made of exactly these files, to serve from now on; None when there is no such."""
        async with self._turn:
            candidate = self._candidate
            if candidate is None or candidate.files != files or not candidate.ready or not candidate.version:
                return None
            self._candidate = None
            if candidate.shadow is not None:
                await candidate.shadow.stop()
            return candidate if candidate.version else None

    @property
    def version(self) -> str:
        """Of what is ready."""
        return self._candidate.version if self._candidate is not None and self._candidate.ready else ""

    @property
    def holds(self) -> bool:
        """The version that served has made room: nothing else may be loaded for this model."""
        return self._candidate is not None and self._candidate.holds

    @property
    def left_s(self) -> float | None:
        """Seconds until what is staged is to be given up; None while it may stay."""
        candidate = self._candidate
        if candidate is not None and candidate.failed:
            return 0.0
        if candidate is not None and candidate.ready and candidate.holds:
            return max(0.0, self._ready_at + self._held_s - time.monotonic())
        return None

    @property
    def backends(self) -> list[Backend]:
        """Those that people wait for."""
        candidate = self._candidate
        if candidate is None or candidate.resident.lane is None or candidate.resident.lane.quiet:
            return []
        return [candidate.resident.lane.backend]

    # -- for the loop -------------------------------------------------------------------------------------------

    def pick(self, inbound: Inbound, history: Sequence[Entry]) -> Resident | None:
        """The new version, if it is to answer this request."""
        candidate = self._candidate
        if candidate is None or not candidate.ready or not candidate.version:
            return None
        new = goes_new(inbound, history, version=candidate.version, percent=candidate.canary)
        return candidate.resident if new else None

    def heard(self, inbound: Inbound, history: Sequence[Entry], reply: Outbound) -> None:
        """A request was answered by the version that serves."""
        candidate = self._candidate
        if candidate is None or not candidate.ready or candidate.shadow is None:
            return
        if reply.version != candidate.version:
            candidate.shadow.offer(inbound, history, reply)

    def cancel(self, request: str) -> None:
        if self._candidate is not None:
            self._candidate.resident.cancel(request)


def _linked(model: ModelConfig, order: ModelOrder) -> ModelConfig:
    """The settings as they will be when the link names the new path; raises `Rejected`."""
    link, path = os.path.abspath(order.link), order.path
    if not path or not Path(path).exists():
        raise Retryable(f"{path or 'path'} does not exist", code="unavailable")
    own = bool(model.path) and os.path.abspath(model.path) == link
    found = [os.path.abspath(adapter.path) == link for adapter in model.lora]
    if not own and not any(found):
        raise Rejected(f"the model {model.name} does not use {order.link}", code="unknown_link")
    adapters = tuple(replace(a, path=path) if its else a for a, its in zip(model.lora, found, strict=True))
    return replace(model, path=path if own else model.path, lora=adapters)
