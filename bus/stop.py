"""End tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 0.5


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel until all have ended.

    Once is not enough on Python 3.11: `asyncio.wait_for`, which nats-py uses, loses a cancellation that arrives
    together with the answer it waits for.
    """
    while rest := [task for task in tasks if not task.done()]:
        for task in rest:
            task.cancel()
        await asyncio.wait(rest, timeout=AGAIN_S)
