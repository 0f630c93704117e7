"""How much work there is for this machine, as the bus tells."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from bus import streams, subjects
from bus.client import Bus
from schemas.model import ModelStatus, WorkerStatus

_model = msgspec.json.Decoder(ModelStatus)
_worker = msgspec.json.Decoder(WorkerStatus)


class Load(Struct, frozen=True, kw_only=True):
    """Requests that run here, requests that nobody has begun, and tokens generated here so far, by row of MODELS."""

    running: int = 0
    queued: int = 0
    tokens: dict[str, int] = {}

    @property
    def working(self) -> bool:
        return self.running + self.queued > 0


def load_of(unfinished: int, models: Sequence[ModelStatus], workers: Sequence[WorkerStatus], host: str) -> Load:
    """Pure. `unfinished` messages lie in INBOX; the rows tell, some seconds late, how many of them run where.

    What no row claims counts as queued, which may be anybody's work: better raised for nothing than late.
    """
    here = {worker.id for worker in workers if subjects.host(worker.host) == host}
    ours = [model for model in models if model.worker in here]
    return Load(
        running=min(unfinished, sum(model.busy for model in ours)),
        queued=max(0, unfinished - sum(model.busy for model in models)),
        tokens={f"{model.name}.{model.worker}": model.tokens for model in ours},
    )


async def unfinished(bus: Bus) -> int:
    """Messages in INBOX: waiting and running. Raises `Retryable` or `Disconnected`."""
    info = await bus.api(f"STREAM.INFO.{streams.INBOX}")
    return int(info["state"]["messages"]) if "state" in info else 0


async def look(bus: Bus, host: str) -> Load:
    """Ask for everything; raises `Retryable` or `Disconnected`."""
    count = await unfinished(bus)
    models = await bus.table("MODELS").entries()
    workers = await bus.table("WORKERS").entries()
    return load_of(
        count, [_model.decode(row) for row in models.values()], [_worker.decode(row) for row in workers.values()], host
    )
