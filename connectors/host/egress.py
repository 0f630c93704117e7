"""Egress: from a stored reply to the platform. The bus is acknowledged only after the platform has confirmed.

A reply that was sent is remembered until long after the bus forgets its id, so that a redelivery is not sent twice.
Killed between the platform's confirmation and that note, a reply can reach the platform again; it then carries the
same id, and platforms that know idempotent sending drop it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from bus.consume import AGAIN, Handler
from bus.contract import Sessions
from bus.pull import Delivery
from connectors import Connector
from connectors.host.admit import Meter
from connectors.host.exchange import Exchanges
from connectors.host.metrics import Metrics
from connectors.host.split import split
from schemas.errors import Retryable, Untrusted
from schemas.message import Outbound

log = logging.getLogger("roost.egress")

_outbound = msgspec.json.Decoder(Outbound)


class Sent:
    """What was sent: known here at once, written to the sessions server in batches, a moment later.

    The note is needed only when an acknowledgement was lost, with this process (the note of the last moment is lost
    with it, as the confirmation would have been) or with the bus (this process still knows).
    """

    REMEMBERED = 20_000
    WRITE_EVERY_S = 0.02

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._known: OrderedDict[str, None] = OrderedDict()
        self._unwritten: list[str] = []

    def add(self, mark: str) -> None:
        self._known[mark] = None
        self._unwritten.append(mark)
        if len(self._known) > self.REMEMBERED:
            self._known.popitem(last=False)

    async def has(self, mark: str, *, look_up: bool) -> bool:
        """True when this process sent it, or with `look_up` any process that noted it."""
        return mark in self._known or (look_up and await self._sessions.was_sent(mark))

    async def write(self) -> None:
        """Write what has come together; kept for the next time when the server is away."""
        marks, self._unwritten = self._unwritten, []
        if not marks:
            return
        try:
            await self._sessions.mark_sent(marks)
        except Retryable as error:
            log.warning("notes of %d sent answers wait: %s", len(marks), error.message)
            self._unwritten = (marks + self._unwritten)[-self.REMEMBERED :]

    async def run(self) -> None:
        """Write until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(self.WRITE_EVERY_S)
                await self.write()
        finally:
            await self.write()


class Egress(Handler):
    """Delivers one connector's replies, in order within each conversation."""

    def __init__(
        self,
        connector: Connector,
        sent: Sent,
        exchanges: Exchanges,
        meter: Meter,
        metrics: Metrics,
        tell: Callable[[Outbound], None] = lambda _: None,
    ) -> None:
        self._connector = connector
        self._sent = sent
        self._exchanges = exchanges
        self._meter = meter
        self._metrics = metrics
        self._tell = tell

    def alone(self, delivery: Delivery) -> bool:
        """The reply to a request that is a conversation of its own."""
        conversation = delivery.subject.rpartition(".")[2]
        return delivery.data.startswith(f'{{"id":"{conversation}"'.encode())

    async def handle(self, delivery: Delivery) -> None:
        reply = self._decode(delivery)
        mark = delivery.headers.get("Nats-Msg-Id", reply.id)
        capabilities = self._connector.capabilities
        again = delivery.deliveries > 1 or AGAIN in delivery.headers
        if not capabilities.repeatable and await self._sent.has(mark, look_up=again):
            return
        self._meter.closed(reply.id)
        self._tell(reply)
        self._exchanges.resolve(reply)
        pieces = list(split(reply.text, capabilities.text_bytes_max)) or [""]
        for piece in pieces[:-1]:
            await self._connector.send(replace(reply, text=piece, attachments=(), notes=()))
        await self._connector.send(replace(reply, text=pieces[-1]) if len(pieces) > 1 else reply)
        if not capabilities.repeatable:
            self._sent.add(mark)
        self._metrics.answered(reply)

    def _decode(self, delivery: Delivery) -> Outbound:
        try:
            return _outbound.decode(delivery.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Untrusted(f"{delivery.subject} seq {delivery.seq}: {error}", code="malformed") from None
