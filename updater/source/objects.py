"""A repository in the bus's object store RELEASES: objects are named by their paths."""

from __future__ import annotations

from bus.contract import Bus
from updater.source.contract import Missing, plain

BUCKET = "RELEASES"


class ObjectsSource:
    """Ends with the bus; `close` has nothing to do."""

    where = "the bus (object store RELEASES)"

    def __init__(self, bus: Bus) -> None:
        self._objects = bus.objects(BUCKET)

    async def read(self, path: str, limit: int) -> bytes:
        data = await self._objects.get(plain(path), limit)
        if data is None:
            raise Missing(f"{self.where} has no {path}")
        return data

    async def close(self) -> None:
        return
