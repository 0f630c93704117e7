"""What tests of the bus share."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

import pytest

from bus import contract, streams
from bus.client import Bus
from bus.embedded import Embedded
from bus.endpoints import Endpoints
from bus.memory import MemoryBus, MemoryServer
from schemas.config import Config
from tests.bus.cluster import cluster
from tests.bus.real import Real, config_of

T = TypeVar("T")


@contextlib.contextmanager
def elsewhere(opened: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Keep something open on an event loop of its own: a test's loop ends with the test."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="elsewhere", daemon=True)
    thread.start()
    try:
        value = asyncio.run_coroutine_threadsafe(opened.__aenter__(), loop).result(90)
        try:
            yield value
        finally:
            asyncio.run_coroutine_threadsafe(opened.__aexit__(None, None, None), loop).result(90)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Endpoints, Path]]:
    """nats-server and valkey-server, once for all tests that do not harm them."""
    data = tmp_path_factory.mktemp("servers")
    with elsewhere(Embedded(config_of(), data)) as endpoints:
        yield endpoints, data


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis Cluster of three masters."""
    with elsewhere(cluster(tmp_path_factory.mktemp("cluster"))) as url:
        yield url


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
