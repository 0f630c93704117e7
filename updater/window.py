"""Chunks on their way from the source: several at once, kept until they are written in their order.

What always holds: no more than `ahead` chunks are read and not yet written; a chunk is asked for once, unless it came
wrong; what this machine has is not asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from schemas.errors import Untrusted
from schemas.release import Chunk
from updater.pace import Pace
from updater.places import Places
from updater.source.contract import Source

TRIES = 3
"""A chunk that is wrong so often will not become right."""


class Window:
    """The chunks of a release, in the order of writing; `group` owns the reads."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        source: Source,
        chunks: Sequence[Chunk],
        places: Places,
        pace: Pace,
        connections: int,
        came: Callable[[int], None],
    ) -> None:
        self._group = group
        self._source = source
        self._chunks = chunks
        self._places = places
        self._pace = pace
        self._came = came
        self._free = asyncio.Semaphore(connections)
        self._ahead = 2 * connections
        self._next = 0
        self._reads: dict[str, asyncio.Task[bytes]] = {}
        self._asked: set[str] = set()
        self._tries: dict[str, int] = {}

    def ready(self, at: int) -> bytes | None:
        """The chunk, if it has come."""
        read = self._reads.get(self._chunks[at].blake3)
        return read.result() if read is not None and read.done() else None

    async def wait(self, at: int) -> bytes:
        """The chunk, when it has come; raises what the source raises."""
        chunk = self._chunks[at]
        return await (self._reads.get(chunk.blake3) or self._ask(chunk))

    def written(self, at: int, count: int) -> None:
        """The chunks from `at` on are on the disk: others may be asked for."""
        for chunk in self._chunks[at : at + count]:
            self._reads.pop(chunk.blake3, None)
        self.fill(at + count)

    def wrong(self, at: int) -> None:
        """The chunk came with other bytes than its name says: ask again, and after `TRIES` raise `Untrusted`."""
        chunk = self._chunks[at]
        tries = self._tries[chunk.blake3] = self._tries.get(chunk.blake3, 0) + 1
        if tries >= TRIES:
            raise Untrusted(
                f"{chunk.path} of {self._source.where} came {tries} times with other bytes than its hash says; "
                "the repository or the way to it is broken",
                code="hash",
            )
        self._ask(chunk)

    def fill(self, at: int) -> None:
        """Ask for what comes next, from `at` on, as far as the window is wide."""
        self._next = max(self._next, at)
        while self._next < len(self._chunks) and len(self._reads) < self._ahead:
            chunk = self._chunks[self._next]
            self._next += 1
            if chunk.blake3 not in self._asked and self._places.get(chunk) is None:
                self._ask(chunk)

    def rewind(self, at: int) -> None:
        """Places were found wrong: look again from `at` on for what must be asked for."""
        self._next = at
        self.fill(at)

    def _ask(self, chunk: Chunk) -> asyncio.Task[bytes]:
        self._asked.add(chunk.blake3)
        read = self._reads[chunk.blake3] = self._group.create_task(self._read(chunk))
        return read

    async def _read(self, chunk: Chunk) -> bytes:
        async with self._free:
            loop = asyncio.get_running_loop()
            wait_s = self._pace.wait_s(loop.time(), chunk.size)
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            data = await self._source.read(chunk.path, chunk.size)
        self._came(len(data))
        return data
