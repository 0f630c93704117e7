"""Supervision of one connector."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import streams
from bus.memory import MemoryBus, MemoryServer
from connectors import Connector, ConnectorSettings
from connectors.host.supervise import BACK_OFF_S, Supervised, back_off
from schemas.errors import AuthFailed, ConfigError, Disconnected
from schemas.event import ComponentStatus
from schemas.message import Inbound, Outbound
from tests.bus.real import config_of, soon


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_the_wait_grows_to_its_cap_and_is_never_nothing(failures: int, jitter: float) -> None:
    low, high = BACK_OFF_S
    assert low / 2 <= back_off(failures, jitter) <= high
    assert back_off(failures, jitter) <= back_off(failures + 1, jitter)


def test_jitter_spreads_those_who_fell_together() -> None:
    assert back_off(3, 0.0) * 2 == back_off(3, 1.0)


class Scripted(Connector):
    """Runs as its script says, one line after the other."""

    def __init__(self, *script: BaseException | None) -> None:
        super().__init__("scripted", ConnectorSettings(), None)  # type: ignore[arg-type]
        self.script = list(script)
        self.runs = 0

    async def run(self, emit: Any) -> None:
        self.runs += 1
        error = self.script.pop(0) if self.script else None
        if error is not None:
            raise error
        await asyncio.Event().wait()

    async def send(self, message: Outbound) -> None: ...


async def emit(inbound: Inbound) -> Any: ...


@pytest.fixture
async def bus() -> Any:
    bus = MemoryBus(MemoryServer(), config_of())
    await streams.apply(bus, bus.config)
    yield bus
    await bus.close()


async def state_of(bus: MemoryBus) -> str:
    raw = await bus.table("CONNECTORS").get("scripted")
    return msgspec.json.decode(raw, type=ComponentStatus).state if raw else ""


def told(bus: MemoryBus, state: str) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return await state_of(bus) == state

    return condition


@pytest.mark.parametrize("error", [Disconnected("lost"), ValueError("a bug")], ids=["lost", "bug"])
async def test_a_lost_link_and_a_bug_are_run_again(bus: MemoryBus, error: Exception) -> None:
    connector = Scripted(error)
    supervised = Supervised(connector, "test", bus)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(supervised.run(emit))
        await soon(told(bus, "degraded"), "it says that it is degraded")
        await soon(lambda: connector.runs == 2, "it runs again")
        await soon(told(bus, "ready"), "it says that it is ready")
        running.cancel()


@pytest.mark.parametrize("error", [AuthFailed("no"), ConfigError("wrong")], ids=lambda e: e.code)
async def test_refused_credentials_end_it_with_an_alert(bus: MemoryBus, error: Any) -> None:
    connector = Scripted(error)
    await Supervised(connector, "test", bus).run(emit)
    assert connector.runs == 1
    assert await state_of(bus) == "failed"
    (alert,) = [m async for m in bus.read("EVENTS", "roost.event.alert.>")]
    assert alert.subject.endswith(error.code)
