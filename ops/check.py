"""Is the configuration right, down to the plug-ins' own settings? Loads each plug-in that is named, no other."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from msgspec import Struct

from ops.config import load
from schemas.config import Config, settings_of
from schemas.errors import ConfigError
from schemas.strict import Strict


class Findings(Struct, frozen=True):
    """What is wrong (Roost refuses to start) and what is worth knowing (it starts without)."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.errors


def check(path: Path) -> Findings:
    """Check the file and everything it names."""
    try:
        return findings(load(path), path)
    except ConfigError as error:
        return Findings(errors=(error.message,))


def findings(config: Config, source: Path) -> Findings:
    """Check an already decoded configuration."""
    errors: list[str] = []
    warnings: list[str] = []
    backends = {entry.name: entry for entry in entry_points(group="roost.backends")}
    for i, model in enumerate(config.models):
        place = f"{source}: models[{i}] ({model.name})"
        if model.type not in backends:
            warnings.append(f"{place}: no backend of type {model.type!r} is installed{_have(backends)}")
            continue
        warnings += _settings(backends[model.type], model.settings, place, errors)
        if model.path and not Path(model.path).exists():
            warnings.append(f"{place}: path: {model.path} does not exist; the model stays absent until it does")
    protocols = {entry.name: entry for entry in entry_points(group="roost.connectors")}
    for i, connector in enumerate(config.connectors):
        place = f"{source}: connectors[{i}] ({connector.name})"
        if connector.type not in protocols:
            errors.append(f"{place}: type: no connector of type {connector.type!r} is installed{_have(protocols)}")
            continue
        errors += _settings(protocols[connector.type], connector.settings, place, errors)
        if connector.model and connector.model not in {model.name for model in config.models}:
            errors.append(f"{place}: model: there is no model named {connector.model!r} in `models`")
    return Findings(tuple(errors), tuple(warnings))


def _settings(entry: EntryPoint, raw: dict[str, object], place: str, errors: list[str]) -> list[str]:
    """Decode the plug-in's settings, adding to `errors`; returns why the plug-in cannot be loaded, if so."""
    try:
        kind: type[Strict] = entry.load().Settings
    except Exception as error:  # noqa: BLE001  a plug-in is somebody else's code and may fail in any way
        return [f"{place}: type {entry.name!r} cannot be loaded: {type(error).__name__}: {error}"]
    try:
        settings_of(kind, raw, place)
    except ConfigError as error:
        errors.append(error.message)
    return []


def _have(entries: dict[str, EntryPoint]) -> str:
    return f" (installed: {', '.join(sorted(entries))})" if entries else ""
