"""API keys: made and verified here, kept hashed in the table KEYS under their id.

A key reads `rk-<id>-<secret>`. What always holds: the secret is stored nowhere; it has 192 bits from the operating
system, so that a plain SHA-256 is as good as a slow hash; comparing takes the same time for every wrong secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time

import msgspec
from msgspec import Struct

from bus.client import Bus
from schemas.errors import Disconnected, Rejected, Retryable
from schemas.strict import NAME

TABLE = "KEYS"
KEY = re.compile(r"rk-([0-9a-f]{12})-([0-9a-f]{48})")
FRESH_S = 2.0
"""For how long a looked-up key is believed; a revoked one works no longer than this."""
CACHED_MAX = 4_096


class KeyRow(Struct, frozen=True, kw_only=True):
    """One key as the table holds it."""

    id: str
    name: str
    sha256: str
    created_at: float
    v: int = 1


def make(name: str, now: float) -> tuple[str, KeyRow]:
    """A new key's text and its row."""
    identity, secret = secrets.token_hex(6), secrets.token_hex(24)
    return f"rk-{identity}-{secret}", KeyRow(id=identity, name=name, sha256=_hash(secret), created_at=now)


def matches(key: str, row: KeyRow) -> bool:
    """Is `key` the one of this row?"""
    found = KEY.fullmatch(key)
    return found is not None and hmac.compare_digest(_hash(found[2]), row.sha256)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


async def create(bus: Bus, name: str) -> str:
    """Make a key and return its text, which nobody can read again; raises `Rejected` for a bad or taken name."""
    if not NAME.fullmatch(name):
        raise Rejected(f"key name {name!r}: use lower-case letters, digits, - and _, 48 at most")
    if any(row.name == name for row in await list_keys(bus)):
        raise Rejected(f"there is a key named {name!r} already; revoke it first or choose another name")
    text, row = make(name, time.time())
    await bus.table(TABLE).put(row.id, msgspec.json.encode(row))
    return text


async def revoke(bus: Bus, name: str) -> bool:
    """Delete the key of this name (or id); False when there is none."""
    ids = [row.id for row in await list_keys(bus) if name in (row.name, row.id)]
    for identity in ids:
        await bus.table(TABLE).delete(identity)
    return bool(ids)


async def list_keys(bus: Bus) -> list[KeyRow]:
    """All keys, oldest first."""
    rows = [msgspec.json.decode(raw, type=KeyRow) for raw in (await bus.table(TABLE).entries()).values()]
    return sorted(rows, key=lambda row: row.created_at)


class KeyRing:
    """Verifies keys for a server: asks the table, and remembers the answer for a moment."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._rows: dict[str, tuple[KeyRow | None, float]] = {}

    async def start(self) -> None:
        """Read all keys, so that the first requests need not wait."""
        now = time.monotonic()
        self._rows = {row.id: (row, now) for row in await list_keys(self._bus)}

    async def verify(self, key: str) -> str | None:
        """The name of the key, or None. Raises `Retryable` when the bus is away and the key was never seen."""
        found = KEY.fullmatch(key)
        if found is None:
            return None
        row = await self._row(found[1])
        return row.name if row is not None and matches(key, row) else None

    async def _row(self, identity: str) -> KeyRow | None:
        row, asked_at = self._rows.get(identity, (None, None))
        if asked_at is not None and time.monotonic() - asked_at < FRESH_S:
            return row
        try:
            raw = await self._bus.table(TABLE).get(identity)
        except (Retryable, Disconnected):
            if row is None:
                raise
            return row  # the bus is away for a moment; who was let in before may stay
        row = msgspec.json.decode(raw, type=KeyRow) if raw else None
        if len(self._rows) >= CACHED_MAX:
            self._rows.clear()
        self._rows[identity] = (row, time.monotonic())
        return row
