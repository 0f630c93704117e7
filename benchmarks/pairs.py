"""Measuring several things in turn, so that a change of the machine's mood touches all of them."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

import psutil
from msgspec import Struct

from benchmarks.result import Row, note

T = TypeVar("T")
PAIRS = 5
QUIET = 0.1
"""Cores that other programs may use in a measurement that is called quiet."""


class Measured(Struct, Generic[T]):
    """The values of each thing in order, and how many cores other programs used meanwhile (median)."""

    values: dict[str, list[T]]
    others: float

    def row(self, benchmark: str) -> Row:
        return Row(benchmark=benchmark, what="used by other programs meanwhile", value=self.others, unit="cores")


async def in_turn(name: str, pairs: int, measures: Mapping[str, Callable[[], Awaitable[T]]]) -> Measured[T]:
    """Measure each thing once a round; every other round backwards. A measure ends the processes that it starts."""
    values: dict[str, list[T]] = {what: [] for what in measures}
    others = []
    for i in range(pairs):
        order = list(measures)
        for what in order if i % 2 == 0 else reversed(order):
            begun, busy, own = time.perf_counter(), _busy_s(), _own_s()
            values[what].append(await measures[what]())
            seconds = time.perf_counter() - begun
            others.append(max(0.0, (_busy_s() - busy - (_own_s() - own)) / seconds))
            loud = "" if others[-1] <= QUIET else f", NOT QUIET: others used {others[-1]:.2f} cores"
            note(f"{name}: round {i + 1} of {pairs}, {what}: {seconds:.1f} s{loud}")
    return Measured(values=values, others=statistics.median(others))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the pairs' ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _busy_s() -> float:
    """Seconds that all cores together have worked since the start of the machine."""
    t = psutil.cpu_times()
    return float(sum(t) - t.idle - getattr(t, "iowait", 0.0) - getattr(t, "guest", 0.0) - getattr(t, "steal", 0.0))


def _own_s() -> float:
    """Seconds that this process and its ended children have worked."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def rounds(quick: bool) -> int:
    """Pairs of a benchmark: `ROOST_BENCH_PAIRS`, or 5; one when it has to be quick."""
    return 1 if quick else int(os.environ.get("ROOST_BENCH_PAIRS", PAIRS))
