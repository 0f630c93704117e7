"""A source for tests: a folder's chunks, every read counted, with faults where a test wants them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from updater.source import Missing


class CountingSource:
    """`before` is called with the number of each read (from 1) and its path, and may raise; `spoil` changes bytes."""

    def __init__(
        self,
        repository: Path,
        before: Callable[[int, str], None] = lambda number, path: None,
        spoil: Callable[[str, bytes], bytes] = lambda path, data: data,
    ) -> None:
        self.where = f"the folder {repository}"
        self.reads: Counter[str] = Counter()
        self.at_once = self.at_once_most = 0
        self._repository = repository
        self._before = before
        self._spoil = spoil

    async def read(self, path: str, limit: int) -> bytes:
        self.reads[path] += 1
        self._before(sum(self.reads.values()), path)
        self.at_once += 1
        self.at_once_most = max(self.at_once_most, self.at_once)
        try:
            await asyncio.sleep(0)
            data = (self._repository / path).read_bytes()
        except FileNotFoundError:
            raise Missing(f"{self.where} has no {path}") from None
        finally:
            self.at_once -= 1
        assert len(data) <= limit
        return self._spoil(path, data)

    async def close(self) -> None: ...
