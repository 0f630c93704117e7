"""Trials: a load in a process that may die of it. What it dies of is told by tests/workers/host/test_stage.py, too."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from schemas.config import ModelConfig
from schemas.errors import Retryable
from tests.bus.real import soon
from tests.conftest import ROOT
from tests.running import until
from tests.tools import brittle
from workers.host.budget import measure
from workers.host.slot import Files, files_of
from workers.host.trials import BadModel, Trials


@pytest.fixture
async def trials() -> AsyncIterator[Trials]:
    made = Trials()
    yield made
    made.close()


def files(path: Path, type_: str = "echo") -> Files:
    return files_of(ModelConfig(name="talk", type=type_, path=str(path)))


async def run(trials: Trials, tried: Files) -> float:
    return await trials.run(tried, "models[0]", measure(), limit=10**9, wait_s=30.0)


async def test_a_prepared_process_is_used_once_and_one_for_another_type_is_let_go(
    trials: Trials, tmp_path: Path
) -> None:
    good = files(brittle.release(tmp_path / "good"))
    await trials.prepare("echo")
    assert trials._ready is not None
    first = trials._ready[1]
    await trials.prepare("echo")
    assert trials._ready[1] is first
    assert await run(trials, good) > 0
    assert trials._ready is None
    assert first.returncode is not None
    await trials.prepare("llama")
    other = trials._ready[1]
    await run(trials, good)
    assert await other.wait() == -signal.SIGKILL


async def test_a_process_that_nobody_uses_is_let_go(tmp_path: Path) -> None:
    trials = Trials(kept_s=0.05)
    await trials.prepare("echo")
    assert trials._ready is not None
    process = trials._ready[1]
    assert await process.wait() == -signal.SIGKILL
    assert await run(trials, files(brittle.release(tmp_path / "good"))) > 0


async def test_a_process_that_died_while_it_was_ready_harms_nobody(trials: Trials, tmp_path: Path) -> None:
    await trials.prepare("echo")
    assert trials._ready is not None
    os.kill(trials._ready[1].pid, signal.SIGKILL)
    await trials._ready[1].wait()
    assert await run(trials, files(brittle.release(tmp_path / "good"))) > 0


async def test_a_type_that_is_not_installed_is_no_fault_of_the_model(trials: Trials, tmp_path: Path) -> None:
    with pytest.raises(Retryable, match="no backend of type 'nothing'"):
        await run(trials, files(brittle.release(tmp_path / "good"), "nothing"))


async def test_a_file_it_cannot_read_is_told_with_its_reason(trials: Trials, tmp_path: Path) -> None:
    (tmp_path / "echo.json").write_text("{")
    with pytest.raises(BadModel, match=r"in its trial: .* is not a file of echo's"):
        await run(trials, files(tmp_path / "echo.json"))


async def test_it_may_write_no_files_and_keeps_no_secrets(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "nosy-1.dist-info").mkdir(parents=True)
    (site / "nosy-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: nosy\nVersion: 1\n")
    (site / "nosy-1.dist-info" / "entry_points.txt").write_text("[roost.backends]\nnosy = nosy:Nosy\n")
    (site / "nosy.py").write_text(
        "import os, resource\n"
        "from workers.echo import EchoBackend\n"
        "class Nosy(EchoBackend):\n"
        "    def load(self, path):\n"
        "        assert 'A_SECRET' not in os.environ and os.getpgid(0) == os.getpid()\n"
        "        assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0 and os.nice(0) > 0\n"
        "        with open(path / 'written', 'w') as file:\n"
        "            file.write('x')\n"
    )
    monkeypatch.setenv("A_SECRET", "x")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(site), os.environ.get("PYTHONPATH", ""))))
    with pytest.raises(BadModel, match=r"OSError: .* File too large"):
        await run(trials, files(brittle.release(tmp_path / "good"), "nosy"))


async def test_a_trial_that_is_given_up_leaves_no_process(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", brittle.environment()["PYTHONPATH"])
    hangs = files(brittle.release(tmp_path / "bad", hang="load"), "brittle")
    before = set(psutil.Process().children())
    running = asyncio.create_task(run(trials, hangs))
    child = (await soon(lambda: set(psutil.Process().children()) - before, "its process")).pop()
    running.cancel()
    await asyncio.wait({running})
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_trial_ends_with_its_worker(tmp_path: Path) -> None:
    """`kill -9` of the worker at any point of a trial."""
    folder = brittle.release(tmp_path / "bad", hang="load")
    script = (
        "import asyncio\n"
        "from tests.workers.host.test_trials import files, run\n"
        "from workers.host.trials import Trials\n"
        "from pathlib import Path\n"
        f"asyncio.run(run(Trials(), files(Path({str(folder)!r}), 'brittle')))\n"
    )
    env = {**os.environ, **brittle.environment()}
    worker = subprocess.Popen([sys.executable, "-c", script], env=env, cwd=ROOT)
    try:
        children = until(lambda: psutil.Process(worker.pid).children(), 30, "its trial")
    finally:
        worker.kill()
        worker.wait()
    _, left = psutil.wait_procs(children, timeout=10)
    assert left == []
