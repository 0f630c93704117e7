"""What tests of the bus share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from bus import contract, streams
from bus.client import Bus
from bus.embedded import Embedded
from bus.endpoints import Endpoints
from bus.memory import MemoryBus, MemoryServer
from schemas.config import Config
from tests.bus.real import Real, config_of


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Endpoints, Path]]:
    """nats-server and valkey-server, once for all tests that do not harm them.

    On an event loop of their own: a test's loop ends with the test.
    """
    data = tmp_path_factory.mktemp("servers")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servers", daemon=True)
    thread.start()
    embedded = Embedded(config_of(), data)
    try:
        yield asyncio.run_coroutine_threadsafe(embedded.start(), loop).result(60), data
    finally:
        asyncio.run_coroutine_threadsafe(embedded.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
async def real(servers: tuple[Endpoints, Path]) -> AsyncIterator[Real]:
    opened = Real(*servers)
    yield opened
    await opened.close()


@pytest.fixture
async def bus(real: Real) -> Bus:
    """A connection to a bus on which nothing has happened."""
    return await real.fresh()


Connect = Callable[..., Awaitable[contract.Bus]]


@pytest.fixture(params=["memory", "real"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Opens connections to one bus, in memory and on a real server; the first one finds it empty."""
    opened: list[contract.Bus] = []
    if request.param == "memory":
        server = MemoryServer()

        async def open_(config: Config | None = None) -> contract.Bus:
            bus = MemoryBus(server, config or config_of())
            if not opened:
                await streams.apply(bus, bus.config)
            opened.append(bus)
            return bus

        yield open_
        for bus in opened:
            await bus.close()
        return

    real: Real = Real(*request.getfixturevalue("servers"))

    async def connect(config: Config | None = None) -> contract.Bus:
        bus = await (real.bus(config) if opened else real.fresh(config))
        opened.append(bus)
        return bus

    yield connect
    await real.close()
