"""Where a repository is sent: a folder, the object store RELEASES of the bus, or a web server (`web.py`).

What always holds: a file appears under its name whole or not at all.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from bus.contract import Bus
from schemas.errors import ConfigError
from updater.publish import disk
from updater.publish.sign import sweep
from updater.publish.web import TOKEN_ENV, Web

BUCKET = "RELEASES"


class Place(Protocol):
    """Used within `async with`; safe for several calls at once."""

    where: str
    """For messages, without secrets."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def has(self, path: str, size: int) -> bool:
        """Whether a file that never changes is there already."""
        ...

    async def read(self, path: str) -> bytes | None:
        """A small file; None when there is none."""
        ...

    async def write(self, path: str, data: bytes) -> None: ...

    async def settle(self) -> None:
        """What was written until now stays, whatever happens."""
        ...

    async def prune(self, keep: set[str]) -> None:
        """Delete files of the repository that are not to be kept; nothing where files cannot be listed."""
        ...


class Folder:
    """A folder of this machine, or one that is mounted here. One publisher at a time."""

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self._folder = folder
        self._fresh: list[Path] = []
        self._held = ExitStack()

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._held.enter_context, disk.locked(self._folder))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    async def has(self, path: str, size: int) -> bool:
        try:
            return (self._folder / path).stat().st_size == size
        except FileNotFoundError:
            return False

    async def read(self, path: str) -> bytes | None:
        try:
            return await asyncio.to_thread((self._folder / path).read_bytes)
        except FileNotFoundError:
            return None

    async def write(self, path: str, data: bytes) -> None:
        place = self._folder / path
        changing = path.startswith("metadata/")
        disk.make(place.parent)
        await asyncio.to_thread(disk.write, place, data, flush=changing)
        if not changing:
            self._fresh.append(place)

    async def settle(self) -> None:
        fresh, self._fresh = self._fresh, []
        await asyncio.to_thread(disk.flush_all, fresh)

    async def prune(self, keep: set[str]) -> None:
        await asyncio.to_thread(sweep, self._folder, keep)


class Store:
    """The object store of a bus; objects have the names of the files."""

    def __init__(self, bus: Bus) -> None:
        self.where = "bus"
        self._objects = bus.objects(BUCKET)
        self._there: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        self._there = await self._objects.list()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def has(self, path: str, size: int) -> bool:
        return self._there.get(path) == size

    async def read(self, path: str) -> bytes | None:
        return await self._objects.get(path)

    async def write(self, path: str, data: bytes) -> None:
        await self._objects.put(path, data)
        self._there[path] = len(data)

    async def settle(self) -> None:
        return None

    async def prune(self, keep: set[str]) -> None:
        for path in set(self._there) - keep:
            await self._objects.delete(path)


def place_of(to: str) -> Folder | Web:
    """What `to` names, unless it is `bus`, which needs a connection."""
    if to.startswith(("http://", "https://")):
        return Web(to, os.environ.get(TOKEN_ENV, ""))
    if "://" in to:
        raise ConfigError(f"{to}: name a folder, https://…, http:// on this machine, or bus")
    return Folder(Path(to))
