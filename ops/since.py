"""Where in a stream a time is."""

from __future__ import annotations

from bus.contract import Bus


async def first_since(bus: Bus, stream: str, subject: str, since: float, last_seq: int) -> int:
    """Sequence of the first message on `subject` not older than `since`: a binary search, a few reads."""
    low, high = 1, last_seq + 1
    while low < high:
        middle = (low + high) // 2
        message = await bus.next(stream, subject, middle)
        if message is None or message.seq >= high or message.time >= since:
            high = middle
        else:
            low = message.seq + 1
    return low
