"""Keep one connector running: capped back-off when its link is lost, an end when its credentials are refused."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time

import msgspec

from bus.contract import Bus
from connectors import Connector, Emit
from schemas.errors import AuthFailed, ConfigError, Disconnected, Retryable
from schemas.event import ComponentStatus, PartState

log = logging.getLogger("roost.connector")

BACK_OFF_S = (0.5, 60.0)
STEADY_S = 60.0
"""A connector that ran this long starts its back-off anew."""


def back_off(failures: int, jitter: float) -> float:
    """Seconds to wait after `failures` in a row; `jitter` in 0…1 spreads many connectors that fell together."""
    low, high = BACK_OFF_S
    return min(high, low * 2.0 ** min(failures, 16)) * (0.5 + jitter / 2)


class Supervised:
    """One connector and how it is."""

    def __init__(self, connector: Connector, type_: str, bus: Bus) -> None:
        self.connector = connector
        self._type = type_
        self._bus = bus
        self.state: PartState = "starting"
        self.reason = ""

    async def run(self, emit: Emit) -> None:
        """Run until cancelled, or until its credentials are refused."""
        failures = 0
        while True:
            started = time.monotonic()
            try:
                await self._set("ready")
                await self.connector.run(emit)
                error: Exception = Disconnected("it ended by itself")
            except (AuthFailed, ConfigError) as refused:
                await self._set("failed", refused.message)
                await self._bus.alert(refused.code, f"{self.connector.name}: {refused.message}", part="connectors")
                return
            except (Disconnected, Retryable) as lost:
                error = lost
            except Exception as bug:
                log.exception("connector %s failed", self.connector.name)
                error = bug
            failures = 0 if time.monotonic() - started > STEADY_S else failures + 1
            wait_s = back_off(failures, random.random())  # noqa: S311  not a secret
            log.warning("connector %s: %s; again in %.1f s", self.connector.name, error, wait_s)
            await self._set("degraded", str(error))
            await asyncio.sleep(wait_s)

    async def _set(self, state: PartState, reason: str = "") -> None:
        self.state, self.reason = state, reason
        await self.report()

    async def report(self) -> None:
        """Rewrite our row in CONNECTORS."""
        row = ComponentStatus(
            name=self.connector.name,
            type=self._type,
            state=self.state,
            seen_at=time.time(),
            pid=os.getpid(),
            reason=self.reason,
        )
        try:
            await self._bus.table("CONNECTORS").put(row.name, msgspec.json.encode(row))
        except (Retryable, Disconnected) as error:
            log.warning("the bus does not take our status: %s", error.message)
