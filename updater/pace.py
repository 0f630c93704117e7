"""How fast a release may come and how fast it does: a limit that all connections share, and the progress that is told.

Pure but for the clock, which is handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct

MEASURED_S = 5.0
"""The rate that is told is that of the last seconds."""
TOLD_EVERY_S = 0.2


class Progress(Struct, frozen=True, kw_only=True):
    """How far a fetch is. Bytes, and bytes a second."""

    done: int
    """On the disk and verified, wherever they came from."""
    size: int
    fetched: int
    """Read from the source; the rest was on this machine."""
    per_s: float


class Pace:
    """Lets bytes through at `rate` a second; the first chunk passes at once, each further one when it is due."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free = 0.0

    def wait_s(self, now: float, size: int) -> float:
        """Take `size` bytes; returns for how long to wait before reading them."""
        if self._rate is None:
            return 0.0
        begin = max(now, self._free)
        self._free = begin + size / self._rate
        return begin - now


class Meter:
    """Counts a fetch, and tells it a few times a second."""

    def __init__(self, size: int, clock: Callable[[], float], tell: Callable[[Progress], None]) -> None:
        self.done = 0
        self.fetched = 0
        self._size = size
        self._clock = clock
        self._tell = tell
        self._told_at = -TOLD_EVERY_S
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)])

    def add(self, done: int = 0, fetched: int = 0) -> None:
        self.done += done
        self.fetched += fetched
        if self._clock() - self._told_at >= TOLD_EVERY_S:
            self.tell()

    def tell(self) -> None:
        now = self._told_at = self._clock()
        self._marks.append((now, self.fetched))
        while len(self._marks) > 2 and now - self._marks[1][0] > MEASURED_S:
            self._marks.popleft()
        since, before = self._marks[0]
        per_s = (self.fetched - before) / (now - since) if now > since else 0.0
        self._tell(Progress(done=self.done, size=self._size, fetched=self.fetched, per_s=per_s))
