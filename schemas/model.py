"""Models as the bus sees them: who serves which version, and how full."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

ModelState = Literal["absent", "loading", "ready", "failed", "unloading"]


class ModelStatus(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One model in one worker. In the table MODELS under `<model>.<worker>`."""

    name: str
    type: str
    worker: str
    state: ModelState
    v: int = 1
    version: str = ""
    """First 12 hex digits of the file's SHA-256, or what the backend says."""
    reason: str = ""
    context: int = 0
    """Tokens that one conversation may hold; 0 where the backend has no such limit."""
    slots: int = 0
    busy: int = 0
    description: str = ""


class WorkerStatus(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One worker process. In the table WORKERS under its id; rewritten every few seconds while it lives."""

    id: str
    host: str
    pid: int
    started_at: float
    seen_at: float
    v: int = 1
    models: tuple[str, ...] = ()
    draining: bool = False


class ModelEvent(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A change of a model's version, on `roost.event.model.<name>.<what>`."""

    model: str
    what: Literal["staged", "swapped", "rolled_back", "loaded", "failed", "unloaded"]
    at: float
    v: int = 1
    version: str = ""
    previous: str = ""
    reason: str = ""
