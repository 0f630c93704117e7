"""Key-value tables on JetStream (`KV_<name>` streams, readable with `nats kv`): small, live facts about parts.

Not a database and not watched: readers ask when they need to know, or refresh every few seconds, so that nothing
here depends on a subscription that outlives a server restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bus.contract import Bus

OPERATION = "KV-Operation"
PURGE = {OPERATION: "PURGE", "Nats-Rollup": "sub"}


class Table:
    """One table. Keys are subject tokens joined by dots; values are bytes, 1 kB or so."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def get(self, key: str) -> bytes | None:
        """The value, or None; `Retryable` when the bus does not answer."""
        msg = await self._bus.last(self._stream, self._prefix + key)
        return None if msg is None or OPERATION in msg.headers else msg.data

    async def put(self, key: str, value: bytes) -> None:
        await self._bus.publish(self._prefix + key, value)

    async def delete(self, key: str) -> None:
        await self._bus.publish(self._prefix + key, b"", headers=PURGE)

    async def entries(self) -> dict[str, bytes]:
        """All rows as they are now; one that is rewritten meanwhile is there all the same, old or new."""
        rows: dict[str, bytes] = {}
        async for msg in self._bus.read(self._stream, self._prefix + ">", each=True):
            key = msg.subject.removeprefix(self._prefix)
            if OPERATION in msg.headers:
                rows.pop(key, None)
            else:
                rows[key] = msg.data
        return rows

    async def keys(self) -> list[str]:
        return list(await self.entries())
