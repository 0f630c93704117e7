"""What a step takes, by the number of its tokens: learned from the steps themselves, and asked for the next one's size.

Pure. A step costs something before its first token and not the same for each further one, and that differs between
machines, models and ways to keep weights, so it is measured and not assumed. What always holds: sizes that were never
tried are taken to be a little cheaper than they are, so that they are tried.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

SIZES: Final = (*range(1, 17), 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 1024, 2048, 4096)
"""Sizes that are kept apart; others count for the nearest below, as so many tokens of it."""
NEWEST: Final = 0.15
"""Weight of the newest step in the moving average."""
SURPRISE: Final = 4.0
"""A step that took so many times as long as usual counts as no more: somebody else was at work."""
FURTHER: Final = 0.5
"""What a token beyond the largest known size is taken to cost, in parts of an average token of that size."""
DOUBT: Final = 0.99
"""What is left of a size's seconds each time that it is passed over as too slow."""


class Pace:
    """Call `took` after each step."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def took(self, tokens: int, seconds: float) -> None:
        size = max(s for s in SIZES if s <= max(tokens, 1))
        now = seconds * size / max(tokens, 1)
        known = self._seconds.get(size)
        self._seconds[size] = now if known is None else known + NEWEST * (min(now, SURPRISE * known) - known)

    def of(self, tokens: float) -> float:
        """Expected seconds; 0 while nothing is known. In straight lines between the known sizes."""
        if not self._seconds:
            return 0.0
        below = max((s for s in self._seconds if s <= tokens), default=0)
        above = min((s for s in self._seconds if s >= tokens), default=0)
        if not below:
            return self._seconds[above]
        low = self._seconds[below]
        if not above:
            return low + (tokens - below) * FURTHER * low / below
        if above == below:
            return low
        return low + (self._seconds[above] - low) * (tokens - below) / (above - below)

    def affords(self, tokens: int, target_s: float) -> bool:
        """Whether a step of so many tokens is expected to fit; nothing does while nothing is known.

        A size that does not fit is taken for a little quicker each time, and so tried again one day: perhaps it was
        slow only because others were at work.
        """
        seconds = self.of(tokens)
        if seconds > target_s and tokens in self._seconds:
            self._seconds[tokens] *= DOUBT
        return 0 < seconds <= target_s

    def most(self, target_s: float) -> int:
        """The largest number of tokens that is expected to fit into so many seconds; 0 where not one does."""
        if not self._seconds:
            return 0
        known = sorted({0, *self._seconds})
        fit = 0.0
        for low, high in pairwise(known):
            begin, end = (self.of(low) if low else 0.0), self.of(high)
            if end <= target_s:
                fit = high
            elif begin <= target_s:
                return max(int(fit), int(low + (high - low) * (target_s - begin) / (end - begin)) if low else 0)
        last = known[-1]
        if fit < last:
            return int(fit)
        return last + int((target_s - self.of(last)) / (FURTHER * self.of(last) / last))
