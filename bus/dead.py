"""Dead letters: what could not be handled, with the reason and the original, and what the operator does with them.

`sweep` finds messages that exhausted their deliveries without anybody saying so (their workers crashed): the server
announces them once; what was missed is found because it lies below the consumer's floor and is still stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from bus import subjects
from bus.pull import Delivery
from schemas.errors import Disconnected, Rejected, Retryable, RoostError
from schemas.event import DeadLetter

if TYPE_CHECKING:
    from bus.consume import Handler
    from bus.contract import Bus, Message

log = logging.getLogger("roost.dead")

SWEEP_S = 20.0
REQUEUED = "Roost-Requeued"
"""Header of a message that the operator sent again; its value makes the new reply's id differ from the old one's."""
_letter = msgspec.json.Decoder(DeadLetter)


class _Id(msgspec.Struct):
    id: str = ""


async def write(bus: Bus, stream: str, delivery: Delivery, error: RoostError) -> None:
    """Store the letter; the same message twice is one letter."""
    try:
        request = msgspec.json.decode(delivery.data, type=_Id).id
    except (msgspec.DecodeError, UnicodeDecodeError):
        request = ""
    letter = DeadLetter(
        stream=stream,
        subject=delivery.subject,
        seq=delivery.seq,
        reason=error.message,
        code=error.code,
        at=time.time(),
        payload=delivery.data,
        id=request,
        deliveries=delivery.deliveries,
        headers={k: v for k, v in delivery.headers.items() if not k.startswith("Nats-")},
    )
    await bus.publish(subjects.dead(stream), msgspec.json.encode(letter), id=f"dead-{stream}-{delivery.seq}")
    log.warning("dead letter: %s seq %d: %s", delivery.subject, delivery.seq, error.message)


async def sweep(bus: Bus, stream: str, consumer: str, handler: Handler) -> None:
    """Turn exhausted messages into dead letters, when the server announces one and every so often besides."""
    wake = asyncio.Event()

    async def announced(_: Message) -> None:
        wake.set()

    subject = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{stream}.{consumer}"
    subscription = await bus.subscribe(subject, announced)
    suspects: set[int] = set()
    try:
        while True:
            try:
                suspects = await _sweep_once(bus, stream, consumer, suspects, handler)
            except (Retryable, Disconnected) as error:
                log.warning("sweep of %s: %s", consumer, error.message)
            wake.clear()
            try:
                async with asyncio.timeout(1.0 if suspects else SWEEP_S):
                    await wake.wait()
            except TimeoutError:
                pass
    finally:
        await subscription.close()


async def _sweep_once(bus: Bus, stream: str, consumer: str, suspects: set[int], handler: Handler) -> set[int]:
    """Bury what lies below the consumer's floor for the second time; return what lies there for the first time.

    Twice, because the server removes an acknowledged message a moment after it moves the floor.
    """
    info = await bus.consumer_info(stream, consumer)
    if info is None:
        return set()
    limit = info.deliveries_max
    seq, seen = 1, set()
    while (msg := await bus.next(stream, info.filter_subject, seq)) is not None and msg.seq <= info.floor:
        seq = msg.seq + 1
        if msg.seq not in suspects:
            seen.add(msg.seq)
            continue
        ack_to = f"$JS.ACK.{stream}.{consumer}.{limit}.{msg.seq}.0.0.0"
        delivery = Delivery(bus, msg.subject, msg.data, msg.headers, ack_to)
        if not await handler.salvage(delivery):
            error = RoostError(
                f"delivered {limit} times without a result: each time its process stopped", code="exhausted"
            )
            await write(bus, stream, delivery, error)
            await handler.tell(delivery, error)
            await bus.alert("dead_letter", f"{msg.subject}: {error.message}")
        await bus.delete(stream, msg.seq)
    return seen


async def dead_letters(bus: Bus, limit: int = 100) -> list[tuple[int, DeadLetter]]:
    """(sequence in DEAD, letter), newest first."""
    found = []
    async for msg in bus.read("DEAD", subjects.DEAD_ALL):
        found.append((msg.seq, _letter.decode(msg.data)))
    return found[::-1][:limit]


async def show(bus: Bus, seq: int) -> DeadLetter:
    """One letter; raises `Rejected` when there is none with this number."""
    msg = await bus.get("DEAD", seq)
    if msg is None:
        raise Rejected(f"there is no dead letter {seq}; `roost dead list` shows them", code="not_found")
    return _letter.decode(msg.data)


async def requeue(bus: Bus, seq: int) -> int:
    """Publish the original again, then drop the letter; returns the new sequence. The request is answered anew."""
    letter = await show(bus, seq)
    headers = {**letter.headers, REQUEUED: str(seq)}
    stored = await bus.publish(letter.subject, letter.payload, id=f"requeue-{seq}", headers=headers)
    await bus.delete("DEAD", seq)
    return stored.seq


async def purge(bus: Bus, seq: int | None = None) -> int:
    """Drop one letter, or all; returns how many."""
    if seq is not None:
        return int(await bus.delete("DEAD", seq))
    return await bus.purge("DEAD")
