"""From `roost up` to the ready line on the starter models (the one for pictures where it is installed), and what all
processes hold in memory when idle."""

from __future__ import annotations

import contextlib
import statistics
import time

import psutil

from benchmarks.models import starter
from benchmarks.pictures import folder_of
from benchmarks.result import Row, Unavailable, main, note
from benchmarks.stack import Stack

NAME = "startup"
READY_S_MAX = 4.0
TOTAL_MB_MAX, EACH_MB_MAX = 250.0, 90.0
MB = 1_000_000


def resident(pid: int) -> float:
    """Resident megabytes of a process."""
    return float(psutil.Process(pid).memory_info().rss) / MB


async def run(quick: bool) -> list[Row]:
    model = starter()
    entries = [{"name": "chat", "type": "llama", "path": str(model)}]
    with contextlib.suppress(Unavailable):
        entries.append({"name": "pictures", "type": "diffusion", "path": str(folder_of("starter"))})
    times, rows = [], []
    for turn in range(1 if quick else 5):
        note(f"{NAME}: start {turn + 1}")
        began = time.perf_counter()
        async with Stack(models=tuple(entries)) as roost:
            times.append(roost.ready_at - began)
            parts = {p["name"]: p["pid"] for p in [*roost.status["parts"], roost.status["supervisor"]]}
            rows = [memory(name, pid) for name, pid in parts.items() if name != "worker"]
    async with Stack() as roost:  # the worker without weights and context: on the echo model
        parts = {p["name"]: p["pid"] for p in [*roost.status["parts"], roost.status["supervisor"]]}
        rows.append(memory("worker without a model", parts["worker"]))
        total = sum(resident(pid) for pid in parts.values())
    ready = Row(
        benchmark=NAME, what="to the ready line, median", value=statistics.median(times), unit="s",
        goal=READY_S_MAX, least=False,
    )  # fmt: skip
    whole = Row(
        benchmark=NAME, what="all processes, idle, echo model", value=total, unit="MB", goal=TOTAL_MB_MAX, least=False
    )
    return [ready, *rows, whole]


def memory(name: str, pid: int) -> Row:
    return Row(benchmark=NAME, what=f"{name}: resident", value=resident(pid), unit="MB", goal=EACH_MB_MAX, least=False)


if __name__ == "__main__":
    main(run)
