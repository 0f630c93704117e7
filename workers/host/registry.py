"""Backends by entry point (`roost.backends`)."""

from __future__ import annotations

from importlib.metadata import entry_points

from schemas.config import ModelConfig, settings_of
from schemas.errors import ConfigError
from workers import Backend

GROUP = "roost.backends"


def backend_of(model: ModelConfig, place: str) -> Backend:
    """Make the backend of one model; raises `ConfigError` for an unknown type, a missing extra or wrong settings."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    point = found.get(model.type)
    if point is None:
        raise ConfigError(f"no backend of type {model.type!r} is installed; there are: {', '.join(sorted(found))}")
    try:
        kind: type[Backend] = point.load()
    except ImportError as error:
        raise ConfigError(
            f"backend {model.type!r} needs a package that is not installed ({error.name}); run `make up`, "
            f"or `pip install 'roost[{model.type}]'`"
        ) from None
    return kind(settings_of(kind.Settings, model.settings, place), model.slots)
