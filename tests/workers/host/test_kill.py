"""`kill -9` of a real worker at every point of an update: it serves what the link names, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from bus import site, subjects
from bus.client import Bus
from bus.endpoints import resolve
from bus.stop import stop
from ops.config import load
from schemas.model import ModelOrder, ModelTold
from tests.running import RunningRoost, wait_for
from tests.tools import brittle
from tests.workers.host.house import Slot
from workers.host.priority import CAN_LOWER, LOW


class Roost(RunningRoost):
    """A Roost that knows the backend `brittle`."""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **brittle.environment()}


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    slot = Slot(tmp_path / "models" / "talk")
    slot.put("2")
    slot.put("slow", load_ms=60_000)
    slot.put("hangs", hang="load")
    return slot


@pytest.fixture
async def roost(tmp_path: Path, slot: Slot) -> AsyncIterator[Roost]:
    model = {"name": "talk", "type": "brittle", "path": str(slot.link), "delay_token_ms": 10, "slots": 4}
    made = Roost(tmp_path / "roost", {"models": [model], "connectors": [{"type": "nats"}]})
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.mark.skipif(not CAN_LOWER, reason="looks at priorities of threads")
@pytest.mark.timeout(180)
async def test_a_worker_killed_at_any_point_of_an_update_serves_what_the_link_names(roost: Roost, slot: Slot) -> None:
    config = load(roost.config_file)
    bus = await Bus.connect(resolve(config, roost.data), config, name="test")
    worker = site.worker(roost.data, 0)
    nc = await roost.client()
    asked = 0
    unheard: list[asyncio.Task[ModelTold]] = []
    """Orders to a worker that is killed."""

    async def order(order: ModelOrder) -> ModelTold:
        data = await bus.request(subjects.models(worker), msgspec.json.encode(order), 60.0)
        (told,) = msgspec.json.decode(data, type=list[ModelTold])
        return told

    async def ask(mark: str) -> None:
        nonlocal asked
        asked += 1
        answer = await roost.ask(nc, {"text": f"question {asked}", "model": "talk"}, 60.0)
        assert answer["text"] == f"question{mark} {asked}{mark}", answer

    async def killed(mark: str) -> None:
        waiting = asyncio.create_task(ask(mark))
        before = roost.kill("worker")
        await asyncio.to_thread(roost.wait_back, "worker", before)
        await waiting
        await ask(mark)

    async def begun(version: str, what: Any, **more: Any) -> None:
        unheard.append(tasks.create_task(order(slot.order(version, **more))))
        await wait_for(what, 30.0, f"{version} is under way")

    async def in_trial() -> bool:
        return any("workers.host.trial" in line for line in commands())

    async def quiet() -> bool:
        return LOW in priorities(roost.pid("worker"))

    def commands() -> list[str]:
        children = psutil.Process(roost.pid("worker")).children(recursive=True)
        return [" ".join(child.cmdline()) for child in children if child.is_running()]

    async with asyncio.TaskGroup() as tasks:
        await ask("~1")
        await begun("hangs", in_trial)  # killed in the trial
        trial = psutil.Process(roost.pid("worker")).children(recursive=True)
        await killed("~1")
        assert psutil.wait_procs(trial, timeout=10)[1] == []
        await begun("slow", quiet, trial=False)  # killed in the load
        await killed("~1")
        assert (await order(slot.order("2", trial=False))).ok  # killed with it staged
        await killed("~1")
        assert (await order(slot.order("2", trial=False))).ok  # killed after the flip, before it has looked
        slot.point("2")
        await killed("~2")
        told = await order(ModelOrder(do="look", model="talk"))
        assert (told.ok, told.version[:2]) == (True, "2+")
        await stop(*unheard)
    await nc.close()
    await bus.close()


def priorities(pid: int) -> set[int]:
    """Of the threads of a process."""
    stats = [(thread / "stat").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
    return {int(stat.rpartition(")")[2].split()[16]) for stat in stats}
