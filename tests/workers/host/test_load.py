"""A model that is larger than the free memory: loaded where the operator allows it, with a warning of its speed."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from bus.memory import MemoryBus
from bus.memory_sessions import MemorySessions
from schemas.config import ModelConfig, WorkerConfig
from schemas.message import Sampling
from schemas.model import ModelStatus
from tests.workers.host.house import BASE, House, opened
from workers.host.budget import Memory
from workers.host.load import Scratch
from workers.host.report import Report
from workers.host.room import Room
from workers.host.served import Served
from workers.host.shared import Shared
from workers.host.trials import Trials

SMALL = {"context": 256, "cache": 256, "batch": 32, "threads": 1, "pages_ram": "0", "pages_disk": "0"}
WHOLE, FREE = 10_000_000_000, 120_000_000
"""The starter model takes some 190 MB, of which 97 are pages of its file."""


async def served(house: House, folder: Path, starter: Path, *, overcommit: bool) -> tuple[ModelStatus, str]:
    """The model's row, and what it answers, with so little memory free."""
    bus, trials = MemoryBus(house.server, BASE), Trials()
    room = Room(WorkerConfig(memory="100%", overcommit=overcommit), lambda: Memory(whole=WHOLE, free=FREE))
    async with asyncio.TaskGroup() as lanes, asyncio.TaskGroup() as tasks:
        shared = Shared(
            bus, MemorySessions(house.store), "here-0", room, Scratch(folder / "scratch"),
            Report(bus, "here-0", lambda: ()), trials, lanes,
        )  # fmt: skip
        one = Served(shared, "talk")
        one.want(ModelConfig(name="talk", type="llama", path=str(starter), slots=1, settings=SMALL), "models[0]")
        tasks.create_task(one.run())
        try:
            await one.settled.wait()
            row, text = one.row(), ""
            assert row is not None
            if row.state == "ready":
                text = (await house.answered("r1", "talk", "Say a word.", sampling=Sampling(max_tokens=4))).text
        finally:
            one.stop()
    trials.close()
    await bus.close()
    return row, text


async def test_a_model_beyond_the_free_memory_answers_where_that_is_allowed_and_its_row_warns_of_its_speed(
    tmp_path: Path, starter_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = await opened(tmp_path)
    with caplog.at_level(logging.WARNING, "roost.load"):
        row, text = await served(house, tmp_path, starter_model, overcommit=True)
    await house.bus.close()
    assert text
    assert row.reason.startswith("0.1 GB of its weights do not stay in memory")
    assert "as slow as the disk" in row.reason
    assert f"models[0]: {row.reason}" in caplog.messages


async def test_where_it_is_not_allowed_it_is_not_loaded_and_its_row_names_the_setting(
    tmp_path: Path, starter_model: Path
) -> None:
    house = await opened(tmp_path)
    row, _ = await served(house, tmp_path, starter_model, overcommit=False)
    await house.bus.close()
    assert row.state == "asleep"
    assert "worker.overcommit" in row.reason
