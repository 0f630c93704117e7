"""How many threads the next step computes with: all cores, or one fewer while another program wants a core.

Pure: it is told what steps took. All threads of a step wait for each other some hundred times; when one of them has
to share its core, all wait for it, and fewer threads are faster (measured on two cores beside a compiler: 40 to 80
tokens a second with two threads, 100 with one; alone 190 and 115). What always holds: the choice that was measured
to be faster is used, but for short trials of the other.
"""

from __future__ import annotations

from statistics import median

Shape = tuple[int, int]
"""Tokens and rows of a batch: only steps of the same shape are compared."""

TRIAL_STEPS = 6
"""Steps of a trial, the two choices in turn."""
WAIT_MIN = 24
WAIT_MAX_MOST = 512
WAIT_MAX_FEWER = 128
"""Steps between trials, doubled after each that changed nothing. A trial of fewer threads costs an idle machine half
a per cent then; one of more threads is a gain as soon as the other program is gone."""
GAIN = 0.93
"""The other choice must take less than this share of the time."""
SLOWER = 1.4
SLOW_STEPS = 4
"""So many steps in a row that take so much longer than usual begin a trial at once."""


class ThreadChoice:
    """`next` before a step, `took` after it."""

    def __init__(self, most: int, fewer: int) -> None:
        self._most = most
        self.current = most
        self._other = fewer
        self._wait = self._left = WAIT_MIN
        self._trial: list[tuple[int, Shape, float]] = []
        self._usual: dict[Shape, float] = {}
        self._slow = 0

    def next(self) -> int:
        """Threads for the next step."""
        if self._other == self.current or self._left > 0:
            return self.current
        return self._other if len(self._trial) % 2 == 0 else self.current

    def took(self, shape: Shape, seconds: float) -> None:
        """The step for which `next` was asked had this shape and took so long."""
        if self._other == self.current:
            return
        if self._left > 0:
            self._left -= 1
            self._watch(shape, seconds)
            return
        self._trial.append((self.next(), shape, seconds))
        if len(self._trial) == TRIAL_STEPS:
            self._judge()

    def _watch(self, shape: Shape, seconds: float) -> None:
        usual = self._usual.get(shape)
        if usual is None:
            if len(self._usual) > 64:
                self._usual.clear()
            self._usual[shape] = seconds
            return
        self._slow = self._slow + 1 if seconds > SLOWER * usual else 0
        self._usual[shape] = 0.95 * usual + 0.05 * min(seconds, 2 * usual)
        if self._slow >= SLOW_STEPS:
            self._left = self._slow = 0

    def _judge(self) -> None:
        """Compare over the shapes that both were tried with; without such, try again soon."""
        ratios = []
        for shape in {s for _, s, _ in self._trial}:
            times = {n: [t for m, s, t in self._trial if m == n and s == shape] for n in (self.current, self._other)}
            if all(times.values()):
                ratios.append(median(times[self._other]) / median(times[self.current]))
        self._trial = []
        if not ratios:
            self._wait = WAIT_MIN
        elif median(ratios) < GAIN:
            self.current, self._other = self._other, self.current
            self._wait = WAIT_MIN
            self._usual.clear()
        else:
            longest = WAIT_MAX_MOST if self.current == self._most else WAIT_MAX_FEWER
            self._wait = min(2 * self._wait, longest)
        self._left = self._wait
