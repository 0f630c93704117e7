"""How many threads torch computes with.

A picture may wait, a conversation may not: the painter and the threads that it starts run at low priority (the backend
is `background`), so that the system gives a text model's threads what they want first, and a picture gets all that is
left. `ease` lowers their number, too. More threads are not always quicker: those of a small model wait for each other
longer than they compute. So each kind of work is tried with all, half and so on, and then has what was quickest.
What always holds: the number changes between two works only, on the painter's own thread, because each thread of a
program has a number of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

TRIES = 3
"""Times that each number is tried: of a few the quickest tells what is possible, however busy the machine is."""
WORTH = 0.95
"""More threads are taken where they need this share of the time at most: others can use the cores, too."""
KNOWN_S = 600.0
"""What was found for so long is found anew: the machine may have been busy when it was tried."""
KINDS_MAX = 64


def cores() -> int:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Kind:
    """What is known of one kind of work: the least seconds with each number of threads."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.tries: dict[int, int] = {}
        self.best: dict[int, float] = {}

    def number(self, most: int) -> int:
        choices = [most >> i for i in range(most.bit_length())]
        tried = min(self.tries.get(count, 0) for count in choices)
        if tried < TRIES:  # in turn, so that a busy moment is not one number's alone
            return next(count for count in choices if self.tries.get(count, 0) == tried)
        quickest = min(self.best[count] for count in choices)
        return min(count for count in choices if self.best[count] * WORTH <= quickest)

    def took(self, count: int, seconds: float) -> None:
        self.tries[count] = self.tries.get(count, 0) + 1
        self.best[count] = min(seconds, self.best.get(count, seconds))


class Threads:
    """`most` threads, or fewer while power is saved, or where fewer are quicker."""

    def __init__(
        self, most: int | None = None, *, clock: Callable[[], float] = time.perf_counter,
        apply: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self.most = most or cores()
        self._limit = self.most
        self._clock = clock
        self._apply = apply or _torch
        self._set = 0
        self._kinds: dict[Hashable, _Kind] = {}
        self._begun: tuple[_Kind, float] | None = None

    @property
    def current(self) -> int:
        """The most that may be used now."""
        return max(1, min(self.most, self._limit))

    def ease(self, level: float) -> None:
        """May be called from any thread; takes effect with the next `use`."""
        self._limit = max(1, round(level * self.most))

    def use(self, work: Hashable = None) -> None:
        """On the painter's thread, before a work. With its kind, the next `done` tells how long it took."""
        kind = None if work is None else self._kind(work)
        wanted = self.current if kind is None else kind.number(self.current)
        if wanted != self._set:
            self._apply(wanted)
            self._set = wanted
        self._begun = None if kind is None else (kind, self._clock())

    def done(self) -> None:
        """On the painter's thread, after a work."""
        if self._begun is not None:
            kind, begun = self._begun
            kind.took(self._set, self._clock() - begun)
            self._begun = None

    def _kind(self, work: Hashable) -> _Kind:
        now = self._clock()
        kind = self._kinds.pop(work, None)
        if kind is None or now - kind.since > KNOWN_S:
            kind = _Kind(now)
        self._kinds[work] = kind  # the last used is the last
        if len(self._kinds) > KINDS_MAX:
            del self._kinds[next(iter(self._kinds))]
        return kind


def apart(function: Callable[[], T]) -> T:
    """Run what computes with torch, and is not the painter's, on a thread that ends, and its computing threads with it.

    While there are more of those than cores, OpenMP lets all of them sleep between two operations, the painter's too,
    who would need twice the time.
    """
    with ThreadPoolExecutor(1, "apart") as once:
        return once.submit(function).result()


def _torch(count: int) -> None:
    import torch

    torch.set_num_threads(count)
