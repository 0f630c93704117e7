"""What the paths of a model mean now: its real files, and the release that they belong to. Blocking.

What always holds: links are followed once for each load, so a link that is changed in the middle of it never mixes the
files of two versions; two `Files` are equal when loading would give the same.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from schemas.config import ModelConfig
from schemas.errors import ConfigError
from schemas.release import RELEASE_FILE

LIGHT = ("description", "system", "default", "routes", "warm_up", "rollout")
"""Fields of a model that need no new lane."""
LINK = "current"
PART = re.compile(r".+-\d{5}-of-\d{5}\.\w+")
"""A part of a model in several files: its name says which one, so a link to it keeps its own."""
MARKED_MAX = 512
"""Files of a folder whose state is remembered; no model has more."""

Mark = tuple[str, int, int, int]
"""A file, its inode, size and time of change in nanoseconds."""


class Files(Struct, frozen=True, kw_only=True):
    """What a load reads: the settings with real paths, how the files were, and their releases."""

    model: ModelConfig
    marks: tuple[Mark, ...] = ()
    release: str = ""

    @property
    def path(self) -> Path | None:
        return Path(self.model.path) if self.model.path else None


class _Named(Struct):
    """What is read of a RELEASE.json."""

    name: str
    version: str


def files_of(model: ModelConfig) -> Files:
    """Follow the links; raises `ConfigError` when `path` names nothing."""
    path = real(Path(model.path)) if model.path else None
    if path is not None and not path.exists():
        remedy = "put a model there, or name another path (`make model` fetches the starter model)"
        raise ConfigError(f"{model.path} does not exist; {remedy}")
    adapters = tuple(replace(adapter, path=str(real(Path(adapter.path)))) for adapter in model.lora)
    light = {name: getattr(_PLAIN, name) for name in LIGHT}
    paths = [*([path] if path is not None else []), *(Path(adapter.path) for adapter in adapters)]
    return Files(
        model=replace(model, path=str(path) if path is not None else "", lora=adapters, **light),
        marks=tuple(mark for one in paths for mark in marks(one)),
        release=_release(path, [Path(adapter.path) for adapter in adapters]),
    )


_PLAIN = ModelConfig(name="", type="")


def real(path: Path) -> Path:
    """The path without links; one that names nothing stays as it is. A slot stands for its current release."""
    try:
        path = path / LINK if (path / LINK).is_symlink() else path
        found = path.resolve(strict=True)
        return path.parent.resolve(strict=True) / path.name if PART.fullmatch(path.name) else found
    except (OSError, RuntimeError):
        return path.absolute()


def marks(path: Path) -> tuple[Mark, ...]:
    """How a file, or the files of a folder, are now. Releases are never changed: their path says all."""
    if _named(path) is not None:
        return ()
    found = []
    for file in _files(path):
        try:
            state = file.stat()
        except OSError:
            continue
        found.append((str(file), state.st_ino, state.st_size, state.st_mtime_ns))
    return tuple(found)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return sorted(file for file, _ in zip(found, range(MARKED_MAX), strict=False))


def _release(path: Path | None, adapters: list[Path]) -> str:
    """The release's version; adapters that are releases of their own are told by name and version after it."""
    own = _named(path) if path is not None else None
    others = [named for adapter in adapters if (named := _named(adapter)) is not None]
    return "+".join([*([own.version] if own else []), *(f"{named.name}-{named.version}" for named in others)])


def _named(path: Path) -> _Named | None:
    """What the RELEASE.json of the folder that a path is, or lies in, says."""
    for folder in (path, *list(path.parents)[:2]):
        try:
            return msgspec.json.decode((folder / RELEASE_FILE).read_bytes(), type=_Named)
        except (OSError, msgspec.MsgspecError):
            continue
    return None
