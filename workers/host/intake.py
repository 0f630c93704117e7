"""The queue of one model as this worker consumes it: opened, resized and shut while the worker runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from bus import streams
from bus.consume import Consumer, Handler
from bus.contract import Bus
from schemas.errors import Disconnected, Retryable

log = logging.getLogger("roost.intake")

AGAIN_S = 1.0


class Intake:
    """At most one consumer at a time. `tasks` outlives it."""

    def __init__(self, bus: Bus, model: str, handler: Handler, tasks: asyncio.TaskGroup) -> None:
        self.consumer: Consumer | None = None
        self._bus = bus
        self._model = model
        self._handler = handler
        self._tasks = tasks
        self._closing = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def open(self, slots: int) -> None:
        """Consume, with so many messages in hand at once."""
        if self.consumer is not None:
            self.consumer.resize(slots)
            return
        limits = self._bus.config.limits
        name, spec = streams.work_consumer(self._model, limits)
        self._closing = asyncio.Event()
        self.consumer = Consumer(
            self._bus, streams.INBOX, name, spec, self._handler, slots=slots, parked_max=limits.parked_max
        )
        self._running = self._tasks.create_task(self._run(self.consumer, self._closing))

    async def _run(self, consumer: Consumer, closing: asyncio.Event) -> None:
        """A bus that is away just now is no reason to end: the queue is still there when it is back."""
        while not closing.is_set():
            try:
                await consumer.run(closing)
            except (Retryable, Disconnected) as error:
                log.warning("%s: its queue cannot be opened yet: %s", self._model, error.message)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S):
                        await closing.wait()

    def stop(self) -> None:
        """Take no more messages."""
        self._closing.set()

    async def shut(self) -> None:
        """Take no more, finish what is in hand within `limits.drain_s`, give back the rest."""
        self.stop()
        if self._running is not None:
            await asyncio.wait({self._running})
        self.consumer = self._running = None
