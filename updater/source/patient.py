"""The one place that tries again: reads of any source, bounded in number, in time and in how many run at once.

What always holds: a read ends. What is `Untrusted`, `Missing`, `Unready` or a refusal of our credentials is said at
once; a link that fails is tried `ATTEMPTS` times, with pauses that double and are drawn at random, so that many
machines do not come back at the same moment.
"""

from __future__ import annotations

import asyncio
import itertools
import random

from schemas.errors import Disconnected, Retryable
from updater.source.contract import Missing, Source, Unready

ATTEMPTS = 4
PAUSE_S = 0.25
PAUSE_S_MAX = 5.0
SLOWEST = 1_024
"""Bytes a second. A source that sends less is taken for gone, even if it sends a byte now and then."""


class Patient:
    """`source`, tried again."""

    def __init__(self, source: Source, *, connections: int, timeout_s: float, rng: random.Random | None = None) -> None:
        self.where = source.where
        self._source = source
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(max(1, connections))
        self._rng = rng or random.Random()  # noqa: S311  (spreads attempts, guards nothing)

    async def read(self, path: str, limit: int) -> bytes:
        for attempt in itertools.count(1):
            try:
                async with self._turns:
                    return await self._once(path, limit)
            except (Missing, Unready):
                raise
            except (Retryable, Disconnected) as error:
                if attempt == ATTEMPTS:
                    raise Disconnected(f"{error.message} ({ATTEMPTS} attempts)", code=error.code) from None
                asked_s = error.after_s if isinstance(error, Retryable) else 0.0
            await asyncio.sleep(pause_s(attempt, asked_s, self._rng))
        raise AssertionError("unreachable")

    async def _once(self, path: str, limit: int) -> bytes:
        allowed_s = self._timeout_s + limit / SLOWEST
        try:
            async with asyncio.timeout(allowed_s):
                return await self._source.read(path, limit)
        except TimeoutError:
            raise Disconnected(f"{self.where}: {path} did not come within {allowed_s:.0f} s", code="slow") from None

    async def close(self) -> None:
        await self._source.close()


def pause_s(attempt: int, asked_s: float, rng: random.Random) -> float:
    """Seconds after the attempt of this number: at random up to a limit that doubles; `asked_s` where it is more."""
    drawn = rng.uniform(0, min(PAUSE_S_MAX, PAUSE_S * 2**attempt))
    return min(PAUSE_S_MAX, max(drawn, asked_s))
