"""Backends by entry point (`roost.backends`)."""

from __future__ import annotations

from importlib.metadata import entry_points

from schemas.config import ModelConfig, settings_of
from schemas.errors import ConfigError
from workers import Backend

GROUP = "roost.backends"


def kind_of(type_: str) -> type[Backend]:
    """The class of a type of backend; raises `ConfigError` where it or its extra is missing."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    point = found.get(type_)
    if point is None:
        raise ConfigError(f"no backend of type {type_!r} is installed; there are: {', '.join(sorted(found))}")
    try:
        kind: type[Backend] = point.load()
    except ImportError as error:
        raise ConfigError(
            f"backend {type_!r} needs a package that is not installed ({error.name}); run `make up`, "
            f"or `pip install 'roost[{type_}]'`"
        ) from None
    return kind


def backend_of(model: ModelConfig, place: str) -> Backend:
    """Make the backend of one model; raises `ConfigError` as `kind_of`, or for wrong settings."""
    kind = kind_of(model.type)
    backend = kind(settings_of(kind.Settings, model.settings, place), model.slots)
    backend.adapters = model.lora
    return backend
