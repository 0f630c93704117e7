"""Which model answers a message. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.config import ModelConfig
from schemas.errors import Rejected

NOT_CHAT = {"diffusion", "embedding"}


def route(wanted: str, connector_default: str, models: Sequence[ModelConfig]) -> str:
    """Name of the model: the one that was asked for, the connector's, the one marked default, the first for chat.

    Raises `Rejected(unknown_model)` naming the ones there are.
    """
    names = [model.name for model in models]
    for name in (wanted, connector_default):
        if name and name not in names:
            raise Rejected(f"there is no model {name!r}; there are: {', '.join(names)}", code="unknown_model")
        if name:
            return name
    for model in models:
        if model.default:
            return model.name
    for model in models:
        if model.type not in NOT_CHAT:
            return model.name
    return names[0]
