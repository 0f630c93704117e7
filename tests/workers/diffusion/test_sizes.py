"""What a pipeline takes, and how it is used so that it fits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.conftest import ROOT
from workers.diffusion import folder, sizes
from workers.diffusion.settings import DiffusionSettings

MEASURE = """
import sys
from pathlib import Path
from tests.workers.diffusion.asked import DiffusionBackend, DiffusionSettings, job, serve

def bytes_of(key):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])

backend = DiffusionBackend(DiffusionSettings(resolution=sys.argv[2], steps=1, threads=1, precision="float32"), 8)
demand = backend.demand(Path(sys.argv[1]), None)
before = bytes_of("VmRSS")
backend.load(Path(sys.argv[1]))
told = serve(backend, *(job(str(i)) for i in range(8)))
assert all(each.finished.error is None for each in told.values())
print(demand.total, bytes_of("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def found(tiny_pipeline: Path) -> folder.Folder:
    return folder.look(tiny_pipeline)


def planned(found: folder.Folder, limit: int | None = None, **settings: Any) -> sizes.Plan:
    return sizes.plan(found, DiffusionSettings(**settings), precision_bytes=4, precision="float32", limit=limit)


def test_with_room_enough_small_models_draw_eight_at_once_and_somewhat_larger_ones(found: folder.Folder) -> None:
    plan = planned(found)
    assert (plan.batch, plan.largest, plan.sliced) == (8, 589_824, False)
    assert plan.room(512 * 512) == 8
    assert plan.room(768 * 768) == 3
    assert plan.room(64 * 64) == 8
    assert "512x512" in plan.demand.what
    assert "8 at once" in plan.demand.what


def test_a_large_denoiser_without_a_card_draws_one_at_a_time(found: folder.Folder) -> None:
    parts = tuple(
        replace(part, weights=replace(part.weights, floats=860_000_000))
        if part.name == "unet" and part.weights
        else part
        for part in found.parts
    )
    large = replace(found, parts=parts)
    assert planned(large).batch == 1
    assert planned(large).demand.weights > 3_440_000_000
    plan = sizes.plan(large, DiffusionSettings(), precision_bytes=2, precision="bfloat16", device="cuda")
    assert plan.batch == 8
    assert planned(large, batch=4).batch == 4


def test_where_memory_is_short_it_gives_up_one_thing_after_the_other(found: folder.Folder) -> None:
    limit = planned(found).demand.total
    seen = []
    while True:
        plan = planned(found, limit)
        assert plan.demand.total <= limit or plan.sliced
        seen.append((plan.batch, plan.largest, plan.sliced))
        if plan.sliced:
            break
        limit = plan.demand.total - 1
    assert seen == sorted(seen, key=lambda way: (way[2], -way[1], -way[0]))
    assert seen[-1] == (1, 512 * 512, True)
    assert planned(found, 1).demand.total > 1, "what cannot fit is told"


def test_on_a_card_the_plan_keeps_to_what_is_free_there(found: folder.Folder) -> None:
    assert sizes.within(None, None) is None
    assert sizes.within(5_000, None) == 5_000
    assert sizes.within(None, 10_000) == 9_200
    assert sizes.within(5_000, 10_000) == 5_000
    assert sizes.within(50_000, 10_000) == 9_200
    free = planned(found).demand.total
    plan = planned(found, sizes.within(64 * free, free))
    assert plan.batch < planned(found, 64 * free).batch
    assert plan.demand.total <= 0.92 * free


def test_what_the_operator_says_is_kept(found: folder.Folder) -> None:
    plan = planned(found, 1, batch=3, pixels_max=1_000_000)
    assert (plan.batch, plan.largest) == (3, 1_000_000)


def test_precision_and_adapters_count(found: folder.Folder) -> None:
    half = sizes.plan(found, DiffusionSettings(), precision_bytes=2, precision="bfloat16", adapters_bytes=10**9)
    assert half.demand.weights == found.size(2) + 10**9
    assert half.demand.compute < planned(found).demand.compute


def test_a_trial_counts_the_file_that_is_being_read(found: folder.Folder) -> None:
    plan = sizes.plan(found, DiffusionSettings(), precision_bytes=2, precision="bfloat16", mapped=True)
    assert plan.demand.mapped > 0
    assert plan.demand.least == plan.demand.total - plan.demand.mapped


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory a process had at most")
@pytest.mark.parametrize("resolution", ["64x64", "256x256"])
def test_what_is_told_is_not_exceeded(tiny_pipeline: Path, resolution: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, str(tiny_pipeline), resolution],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told, real = map(int, done.stdout.split())
    assert real < told
