"""Real servers for tests: started once for the whole run, emptied for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bus import streams
from bus.client import Bus
from bus.endpoints import Endpoints
from bus.sessions import Sessions
from schemas.config import BusConfig, Config, LimitConfig, ModelConfig, SessionConfig

LIMITS = LimitConfig(ack_wait_s=1.0, drain_s=2.0)


def config_of(**limits: Any) -> Config:
    """A configuration with one model and quick limits, but for `limits`."""
    return Config(
        models=(ModelConfig(name="echo", type="echo"),),
        bus=BusConfig(listen="127.0.0.1:0"),
        sessions=SessionConfig(listen="127.0.0.1:0"),
        limits=replace(LIMITS, **limits),
    )


class Real:
    """The running servers and what was opened on them."""

    def __init__(self, endpoints: Endpoints, data: Path) -> None:
        self.endpoints = endpoints
        self.data = data
        self._opened: list[Bus | Sessions] = []

    async def bus(self, config: Config | None = None) -> Bus:
        """One more connection."""
        bus = await Bus.connect(self.endpoints, config or config_of(), name="test")
        self._opened.append(bus)
        return bus

    async def fresh(self, config: Config | None = None) -> Bus:
        """A connection to a bus on which nothing has happened."""
        bus = await self.bus(config)
        names = [*streams.declared(bus.config), *streams.stores(bus.config)]
        await asyncio.gather(*(bus.api(f"STREAM.DELETE.{name}") for name in names))
        await streams.apply(bus, bus.config)
        return bus

    async def sessions(self, data: Path | None = None, **limits: Any) -> Sessions:
        """A connection to an empty session server; `data` holds the key of its envelopes."""
        sessions = Sessions.connect(self.endpoints, SessionConfig(**limits), data or self.data)
        self._opened.append(sessions)
        return sessions

    async def close(self) -> None:
        for opened in self._opened:
            await opened.close()


async def soon(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str, timeout_s: float = 10.0) -> Any:
    """Wait until `condition` is true and return what it gave; it may be a coroutine function."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert asyncio.get_running_loop().time() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.005)
