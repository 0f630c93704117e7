"""Server-sent events of one answer.

The response starts with the first thing to say: while the request waits in the queue a failure can still have its
own status. What always holds: no event is written after the end, and two writers never interleave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from aiohttp import web

from connectors import Exchange
from connectors.host.http import HEADERS
from connectors.openai.chunks import COMMENT
from connectors.openai.pictures import Shown
from connectors.openai.reply import failure
from schemas.errors import Retryable, RoostError
from schemas.message import Delta, Outbound

BEAT_S = 15.0  # proxies close a silent connection after 30 to 60 s


class EventStream:
    """One `text/event-stream` response that begins by itself at the first `send`."""

    def __init__(self, request: web.Request, headers: Mapping[str, str], beat_s: float = BEAT_S) -> None:
        self._request = request
        self._beat_s = beat_s
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self.response = web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream", "Cache-Control": "no-store",
                     "X-Accel-Buffering": "no", **headers}
        )  # fmt: skip

    @property
    def begun(self) -> bool:
        return self.response.prepared

    async def send(self, data: bytes) -> None:
        """Write; raises `ConnectionError` when the client has left."""
        async with self._lock:
            if not self.response.prepared:
                await self.response.prepare(self._request)
            await self.response.write(data)
            self._last = self._loop.time()

    async def beat(self) -> None:
        """A comment whenever nothing was said for a while, until cancelled: no client reads it, every proxy sees it."""
        while True:
            silent = self._loop.time() - self._last
            if silent >= self._beat_s:
                try:
                    await self.send(COMMENT)
                except ConnectionError:
                    return
            else:
                await asyncio.sleep(self._beat_s - silent)


class Script(Protocol):
    """What a client has been told of one answer, and the events that tell it the rest."""

    def piece(self, delta: Delta) -> bytes: ...

    def end(self, outbound: Outbound, notes: Sequence[str], shown: Sequence[Shown]) -> bytes: ...


Show = Callable[[Outbound], Awaitable[Sequence[Shown]]]
"""The pictures of an answer, as its client is to be shown them."""


async def relay(
    exchange: Exchange, script: Script, events: EventStream, notes: tuple[str, ...], limit_s: float, show: Show
) -> RoostError | ConnectionError | None:
    """Send the answer to its end. What went wrong is returned: the caller knows if a status can still be sent."""
    async with asyncio.TaskGroup() as group:
        beat = group.create_task(events.beat())
        try:
            async with asyncio.timeout(limit_s):
                return await _relay(exchange, script, events, notes, show)
        except TimeoutError:
            return Retryable("the answer did not come in time; fetch it later by its request id", code="timeout")
        except (RoostError, ConnectionError) as error:
            return error
        finally:
            beat.cancel()


async def _relay(
    exchange: Exchange, script: Script, events: EventStream, notes: tuple[str, ...], show: Show
) -> RoostError | None:
    async for item in exchange:
        if isinstance(item, Delta):
            if data := script.piece(item):
                await events.send(data)
            continue
        problem = failure(item)
        if problem is not None:
            return problem
        await events.send(script.end(item, notes, await show(item)))
        return None
    return Retryable("the answer did not come; fetch it later by its request id")
