"""How many threads the next step computes with: as many as there are cores that nobody else wants.

All threads of a step wait for each other some hundred times; when one of them has to share its core, all wait for it,
and a step can take ten times as long: one thread fewer is then faster. What others use is known exactly, because what
we use is. What always holds: it looks and does not try, for a single step with too many threads may take seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil

LOOK_S = 0.25
"""Between two looks; each takes some 50 µs, and the system's books are kept in hundredths of a second."""
SHARE_DOWN = 0.35
"""A core of which others use more than this is theirs."""
SHARE_UP = 0.15
"""A core of which others use less than this is ours again."""


class ThreadChoice:
    """Ask `next` before a step. `most` threads unless others are busy; never fewer than one."""

    def __init__(
        self,
        most: int,
        cores: int,
        *,
        used: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cores`: how many we may run on; `used`: core-seconds that other programs have used of them so far."""
        self.most = most
        self._cores = cores
        self._used = used or used_by_others
        self._clock = clock
        self._then = (clock(), self._used())
        self._chosen = self._vote = most
        self.limit = most
        """Lower than `most` to save power."""

    @property
    def current(self) -> int:
        return max(1, min(self._chosen, self.limit))

    def next(self) -> int:
        """Threads for the next step."""
        passed = self._clock() - self._then[0]
        if passed >= LOOK_S:
            used = self._used()
            self._judge((used - self._then[1]) / passed)
            self._then = (self._then[0] + passed, used)
        return self.current

    def _judge(self, others: float) -> None:
        """`others`: cores that other programs used since the last look. Two looks must agree: bursts are short."""
        vote = self._fitting(self._cores - others)
        down, up = vote < self._chosen, vote > self._chosen
        if down and self._vote < self._chosen:
            self._chosen = max(vote, self._vote)
        elif up and self._vote > self._chosen:
            self._chosen = min(vote, self._vote)
        self._vote = vote

    def _fitting(self, free: float) -> int:
        fewer, more = int(free + SHARE_DOWN), int(free + SHARE_UP)
        wanted = fewer if fewer < self._chosen else max(more, self._chosen)
        return max(1, min(self.most, wanted))


def allowed() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def used_by_others() -> float:
    """Core-seconds on our cores that were neither idle nor ours; what a hypervisor took counts as used by others."""
    cores = psutil.cpu_times(percpu=True)
    busy = 0.0
    for times in (cores[i] for i in allowed() if i < len(cores)):
        # guest time is part of user time, so only the first eight fields count
        busy += sum(times[:8]) - times.idle - getattr(times, "iowait", 0.0)
    return busy - time.process_time()
