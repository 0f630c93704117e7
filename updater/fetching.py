"""Fetches the version at work of one slot, telling how far it is, and has workers prepare for it near the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bus.stop import stop
from updater.fetch import Fetched, fetch
from updater.pace import Progress
from updater.swap import Beside

if TYPE_CHECKING:
    from updater.shared import Shared
    from updater.way import Way

EVENT_S = 5.0
NEAR_S = 5.0
NEAR_BYTES = 32_000_000
"""So soon, or so little, before the end of a download workers prepare a trial."""


async def fetched_into(way: Way, shared: Shared, beside: Beside, version: str) -> Fetched:
    """Install the version, and let `standby` name it; raises what the source, the disk and `fetch` raise."""
    way.show("fetching")
    assert shared.check is not None
    release = await shared.check.trusted_now().release(way.slot.name, version)
    near = asyncio.Event()
    now = Progress(done=0, size=release.size, fetched=0, per_s=0.0)

    def progress(made: Progress) -> None:
        nonlocal now
        now = made
        way.show("fetching", done=made.done, size=made.size, fetched=made.fetched, per_s=made.per_s)
        if made.size - made.done <= max(NEAR_BYTES, NEAR_S * made.per_s):
            near.set()

    async def prepare() -> None:
        await near.wait()
        await beside.prepare(way.slot)

    async def tell() -> None:
        while True:
            await way.event("fetching", version=version, previous=way.current, done=now.done, size=now.size)
            await asyncio.sleep(EVENT_S)

    tasks = [asyncio.create_task(prepare()), asyncio.create_task(tell())]
    try:
        fetched = await fetch(release, shared.source, way.store, shared.config, progress)
    finally:
        await stop(*tasks)
    await way.steadily(lambda: asyncio.to_thread(way.store.point, "standby", version))
    return fetched
