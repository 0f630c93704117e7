"""Connectors by entry point (`roost.connectors`)."""

from __future__ import annotations

from importlib.metadata import entry_points

from connectors import Connector, Host
from schemas.config import ConnectorConfig, settings_of
from schemas.errors import ConfigError

GROUP = "roost.connectors"


def connector_class(type_: str, place: str) -> type[Connector]:
    """The class of one connector type; raises `ConfigError` for an unknown type or a missing extra."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    point = found.get(type_)
    if point is None:
        raise ConfigError(f"{place}: type: no connector {type_!r} is installed; there are: {', '.join(sorted(found))}")
    try:
        kind: type[Connector] = point.load()
    except ImportError as error:
        raise ConfigError(
            f"{place}: needs a package that is not installed ({error.name}); `pip install 'roost[{type_}]'`"
        ) from None
    return kind


def create(config: ConnectorConfig, place: str, kind: type[Connector], host: Host) -> Connector:
    """One connector with its decoded settings."""
    return kind(config.name, settings_of(kind.Settings, config.settings, place), host)
