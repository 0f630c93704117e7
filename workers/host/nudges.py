"""Nudges: what makes a worker look at the links again. The link is the truth; an event only says that it has changed.

What always holds: an event that was missed while the bus was away is made up for when it is back.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from bus import subjects
from bus.contract import Bus, Message, Subscription
from schemas.model import ModelEvent, ModelOrder
from workers.host.models import Models

log = logging.getLogger("roost.models")

FLIPPED = ("swapped", "rolled_back")
_event = msgspec.json.Decoder(ModelEvent)


class Nudges:
    """Listens from `open` to `close`; `tasks` outlives it."""

    def __init__(self, bus: Bus, models: Models, tasks: asyncio.TaskGroup) -> None:
        self._bus = bus
        self._models = models
        self._tasks = tasks
        self._heard: list[Subscription] = []

    async def open(self) -> None:
        for what in FLIPPED:
            self._heard.append(await self._bus.subscribe(subjects.model_events(what), self._flipped))
        self._bus.on_reconnect.append(self._back)

    async def close(self) -> None:
        self._bus.on_reconnect.remove(self._back)
        for subscription in self._heard:
            await subscription.close()

    async def _flipped(self, message: Message) -> None:
        try:
            event = _event.decode(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("an event that cannot be read: %s", error)
            return
        self._look(event.model)

    def _back(self) -> None:
        self._look("")

    def _look(self, model: str) -> None:
        self._tasks.create_task(self._models.obey(ModelOrder(do="look", model=model)))
