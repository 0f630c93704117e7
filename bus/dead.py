"""Dead letters: what could not be handled, with the reason and the original, and what the operator does with them."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec

from bus import subjects
from bus.pull import Delivery
from schemas.errors import Rejected, RoostError
from schemas.event import DeadLetter

if TYPE_CHECKING:
    from bus.contract import Bus

log = logging.getLogger("roost.dead")

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
