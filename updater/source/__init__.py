"""Where releases come from: a folder, http(s), or the bus's object store; `source_of` chooses."""

from __future__ import annotations

import os
from pathlib import Path

from bus.contract import Bus
from schemas.errors import ConfigError
from schemas.update import UpdatesConfig
from updater.source.contract import Missing, Source, Unready
from updater.source.patient import Patient

__all__ = ["Missing", "Source", "Unready", "source_of"]


def source_of(config: UpdatesConfig, bus: Bus) -> Source:
    """The source that `updates.source` names, tried again where that may help; raises `ConfigError`."""
    return Patient(_kind(config, bus), connections=config.connections, timeout_s=config.timeout_s)


def _kind(config: UpdatesConfig, bus: Bus) -> Source:
    if config.source == "bus":
        from updater.source.objects import ObjectsSource

        return ObjectsSource(bus)
    if "://" in config.source:
        from updater.source.http import TOKEN_ENV, HttpSource

        token = os.environ.get(TOKEN_ENV, "").strip()
        return HttpSource(config.source, connections=config.connections, timeout_s=config.timeout_s, token=token)
    if not config.source:
        raise ConfigError("updates.source: a folder, https://HOST/…, http:// on this machine, or bus")
    from updater.source.folder import FolderSource

    return FolderSource(Path(config.source), connections=config.connections)
