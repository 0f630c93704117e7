"""What the page tells of models: one line for each in the picker, with the new version that is on its way. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from msgspec import Struct

from connectors.web.wish import sizes
from schemas.config import ModelConfig
from schemas.model import ModelState, ModelStatus
from schemas.update import Phase, UpdateStatus

NOT_FOR_CHAT = frozenset({"embedding"})
"""Backends whose models answer no conversation."""
PHASES: tuple[Phase, ...] = get_args(Phase)
RESOLUTION = "512x512"
"""What models that draw are taken to be made for where their settings do not say."""


class Update(Struct, frozen=True, kw_only=True):
    """A new version of a model on its way, or what became of the last one."""

    name: str
    """Of its slots: models that share them are updated together."""
    phase: Phase
    version: str
    current: str
    done: int
    size: int
    until: float
    reason: str


class Model(Struct, frozen=True, kw_only=True):
    """One line of the model picker, over all workers that serve it."""

    name: str
    type: str
    state: ModelState
    reason: str
    description: str
    default: bool
    update: Update | None
    paints: bool
    """It answers with pictures, and with nothing else."""
    sizes: tuple[str, ...]
    """Of pictures, to choose from; its own is the first."""
    steps: int
    """As configured; 0 where it is not."""


def paints(row: ModelStatus) -> bool:
    return row.type == "diffusion" or ("image" in row.kinds and "chat" not in row.kinds)


def update(model: str, slots: Sequence[UpdateStatus]) -> Update | None:
    """What there is to tell of `model`: of several machines, the one that is furthest; None where all is as it was."""
    told = [slot for slot in slots if model in slot.models and (slot.phase != "idle" or slot.reason)]
    if not told:
        return None
    slot = max(told, key=lambda slot: (PHASES.index(slot.phase), slot.done))
    return Update(
        name=slot.name,
        phase=slot.phase,
        version=slot.version,
        current=slot.current,
        done=slot.done,
        size=slot.size,
        until=slot.until,
        reason=slot.reason,
    )


def models(
    rows: Sequence[ModelStatus],
    default: str,
    slots: Sequence[UpdateStatus] = (),
    configured: Sequence[ModelConfig] = (),
) -> list[Model]:
    """Rows of all workers as one line for each model; the best state counts."""
    settings = {model.name: model.settings for model in configured}
    order: tuple[ModelState, ...] = ("ready", "loading", "asleep", "unloading", "failed", "absent")
    best: dict[str, ModelStatus] = {}
    for row in rows:
        known = best.get(row.name)
        if row.type not in NOT_FOR_CHAT and (known is None or order.index(row.state) < order.index(known.state)):
            best[row.name] = row
    return [_model(row, default, slots, settings.get(row.name, {})) for row in best.values()]


def _model(row: ModelStatus, default: str, slots: Sequence[UpdateStatus], settings: Mapping[str, object]) -> Model:
    steps = settings.get("steps")
    return Model(
        name=row.name,
        type=row.type,
        state=row.state,
        reason=row.reason,
        description=row.description,
        default=row.name == default,
        update=update(row.name, slots),
        paints=paints(row),
        sizes=sizes(str(settings.get("resolution", RESOLUTION))) if paints(row) else (),
        steps=steps if isinstance(steps, int) else 0,
    )
