"""How one model stands in this worker, as its row tells it; and when a file that is missing has come."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from schemas.config import ModelConfig
from schemas.model import ModelStatus
from workers import Backend
from workers.host.resident import Resident
from workers.host.slot import Mark, marks, real

STILL_S = 1.0
"""A file that has come must not have changed for this long: it may still be being written."""

Trouble = Literal["", "absent", "failed"]


class Standing:
    """What is known of a model beside its lane: what its backend says, and what is wrong."""

    def __init__(self, name: str, worker: str) -> None:
        self.trouble: Trouble = ""
        self.reason = ""
        self.warning = ""
        """What is to be said of the lane that serves."""
        self.refusing = False
        """It cannot be had: whoever asks is told so, unless another worker serves it."""
        self.look_at = 0.0
        """When to look again whether it can be had, in monotonic time."""
        self.facts = ModelStatus(name=name, type="", worker=worker, state="asleep")
        self._told: ModelStatus | None = None

    @property
    def wrong(self) -> bool:
        """There is something that another look at the settings may mend."""
        return bool(self.trouble or self.reason)

    def learn(self, backend: Backend, version: str = "") -> None:
        """What a backend says of itself; more of it once it is loaded."""
        self.facts = replace(
            self.facts,
            version=version or backend.version or self.facts.version,
            context=backend.context or self.facts.context,
            slots=backend.slots,
            kinds=tuple(sorted(backend.kinds)),
            abilities=tuple(sorted(backend.abilities)),
        )

    def row(self, model: ModelConfig, resident: Resident, candidate: str) -> ModelStatus:
        """The row in MODELS."""
        state = resident.state
        if self.trouble and state in ("asleep", "unloading"):
            state = self.trouble
        return replace(
            self.facts,
            type=model.type,
            description=model.description,
            state=state,
            candidate=candidate,
            reason=self.reason,
            busy=resident.busy,
            memory_bytes=self.facts.memory_bytes if state == "ready" else 0,
            tokens=resident.tokens,
            tokens_per_s=round(resident.tokens_per_s, 1),
        )

    def news(self, row: ModelStatus | None) -> bool:
        """Whether more than its counts has changed since the last call."""
        now = replace(row, busy=0, tokens=0, tokens_per_s=0.0) if row is not None else None
        changed = now != self._told
        self._told = now
        return changed


class Awaited:
    """The file or folder of a model that is not there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[Mark, ...] = ()
        self._since = 0.0

    @property
    def soon(self) -> bool:
        """It is there, and was looked at too short a time ago."""
        return bool(self._seen)

    async def come(self) -> bool:
        """Whether it is there and has kept still."""
        now = await asyncio.to_thread(self._look)
        if now != self._seen:
            self._seen, self._since = now, time.monotonic()
        return bool(now) and time.monotonic() - self._since >= STILL_S

    def _look(self) -> tuple[Mark, ...]:
        if not self._path.exists():
            return ()
        found = real(self._path)
        return marks(found) or ((str(found), 0, 0, 0),)


async def awaited(model: ModelConfig | None) -> Awaited | None:
    """The path of a model if nothing is there; a model that names none misses nothing."""
    if model is None or not model.path or await asyncio.to_thread(Path(model.path).exists):
        return None
    return Awaited(Path(model.path))
