"""The rounds of the power part, told of work by hand, on a made tree."""

import asyncio
from pathlib import Path

import pytest

from ops.rounds import Rounds
from schemas.config import PowerConfig
from tests.ops.trees import laptop


async def test_work_that_ends_before_the_round_still_raises_the_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The word of a worker and a look at an empty queue may come right after each other."""
    tree = laptop(tmp_path / "sys")
    monkeypatch.setenv("ROOST_SYSFS_ROOT", str(tree.root))
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "data").mkdir()
    rounds = Rounds(PowerConfig(), tmp_path / "data", "here")
    stopping = asyncio.Event()

    async def levels(*wanted: str) -> None:
        seen: list[str | None] = []
        async with asyncio.timeout(20):
            while len(seen) < len(wanted):
                await rounds.changed.wait()
                rounds.changed.clear()
                while rounds.news:
                    if (event := rounds.news.popleft()).what == "level":
                        seen.append(event.level)
        assert seen == list(wanted)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rounds.run(stopping))
        await levels("normal")
        rounds.work(True)
        rounds.work(False)
        await levels("full", "normal")
        assert tree.governors() == {"powersave"}
        stopping.set()
