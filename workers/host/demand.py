"""What each model will take, told before anything is loaded: `python -m workers.host.demand`, for `roost doctor`.

Standard input holds the models of the configuration and their memory limits as JSON, standard output has one JSON
object a model. A model file that is broken costs its own line only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from schemas.config import ModelConfig, WorkerConfig
from schemas.errors import RoostError
from schemas.machine import DemandAsked, ModelDemand
from schemas.strict import bytes_of
from workers import Demand
from workers.host import budget
from workers.host.registry import backend_of


def tell(model: ModelConfig, worker: WorkerConfig, whole: int) -> ModelDemand:
    """Ask the model's backend; with the limit that it would have if it were alone."""
    limit = bytes_of(worker.memory, whole)
    if model.memory is not None:
        limit = min(limit, bytes_of(model.memory, whole))
    try:
        backend = backend_of(model, f"models ({model.name})")
        demand = backend.demand(Path(model.path) if model.path else None, limit)
    except RoostError as error:
        return ModelDemand(name=model.name, type=model.type, limit=limit, error=error.message)
    except Exception as error:  # noqa: BLE001  a plug-in may fail in any way, and the next model has its line too
        return ModelDemand(name=model.name, type=model.type, limit=limit, error=f"{type(error).__name__}: {error}")
    if demand.total == 0 and model.size is not None:
        demand = Demand(weights=bytes_of(model.size, whole), what="as models[].size says")
    return ModelDemand(
        name=model.name,
        type=model.type,
        limit=limit,
        total=demand.total,
        least=demand.least,
        **{name: getattr(demand, name) for name in ("weights", "mapped", "state", "compute", "what")},
    )


def main() -> int:
    """Read, ask, print."""
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=DemandAsked)
    whole = budget.measure().whole
    for model in asked.models:
        print(msgspec.json.encode(tell(model, asked.worker, whole)).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
