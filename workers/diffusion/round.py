"""One round: pictures that are computed together, on the painter's thread, from words to files.

What always holds: a picture whose values are no numbers is an error and never a file; rows whose request is given up
are computed with the others and thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from schemas.errors import Rejected
from workers import Picture
from workers.diffusion import preview
from workers.diffusion.painter import GivenUp
from workers.diffusion.pipeline import OnStep, Painted, Stroke
from workers.diffusion.png import MEDIA_TYPE, png
from workers.diffusion.preview import Pace
from workers.diffusion.threads import Threads
from workers.diffusion.wishes import Key, Wish

if TYPE_CHECKING:
    import torch


class Row(Struct, frozen=True):
    """One picture: of which request, and which of its pictures."""

    request: str
    number: int
    wish: Wish


Outcome = Picture | Rejected
"""What became of a row."""


class Paints(Protocol):
    """What a round needs of a pipeline."""

    preview: Callable[[torch.Tensor], torch.Tensor] | None

    def paint(self, key: Key, strokes: Sequence[Stroke], on_step: OnStep) -> Painted: ...


class Round:
    """Made on the lane, performed on the painter's thread; the lane reads `at` and takes `previews` meanwhile."""

    def __init__(
        self, key: Key, rows: Sequence[Row], pipeline: Paints, version: str, pace: Pace, threads: Threads
    ) -> None:
        self.key = key
        self.rows = tuple(rows)
        self.at = (0, 0)
        """Step, and of how many."""
        self.previews: dict[str, bytes] = {}
        self.unwanted: set[str] = set()
        """Requests that have been given up; written by the lane."""
        self._pipeline = pipeline
        self._version = version
        self._pace = pace
        self._threads = threads
        self._bad: set[int] = set()

    @property
    def wanted(self) -> list[int]:
        """Rows whose pictures somebody waits for."""
        return [i for i, row in enumerate(self.rows) if row.request not in self.unwanted]

    def perform(self, pause: Callable[[], None]) -> list[Outcome | None]:
        """What became of each row; None where nobody waits for it. Raises what the pipeline raises."""

        def stepped(step: int, steps: int, values: torch.Tensor) -> None:
            self._threads.done()
            self._judge(values)
            if self._pace.due():
                self._show(values)
            self.at = (step, steps)
            pause()
            self._threads.use((*size, "step" if step < steps else "decoding"))

        size = (self.key.pixels, len(self.rows), self.key.guidance > 1)
        self._threads.use()
        strokes = [
            Stroke(row.wish.prompt, row.wish.negative, row.wish.seed_of(row.number), row.wish.start)
            for row in self.rows
        ]
        painted = self._pipeline.paint(self.key, strokes, stepped)
        self._threads.done()
        return [self._outcome(i, painted) if i in self.wanted else None for i in range(len(self.rows))]

    def _judge(self, values: torch.Tensor) -> None:
        """Give up when none of the pictures can become one."""
        finite = values.isfinite().flatten(1).all(dim=1).tolist()
        self._bad.update(i for i, good in enumerate(finite) if not good)
        wanted = self.wanted
        if not wanted:
            raise GivenUp
        if self._bad.issuperset(wanted):
            raise no_picture()

    def _show(self, values: torch.Tensor) -> None:
        """A preview for each request, of its first picture in this round."""
        if self._pipeline.preview is None or values.ndim != 4:
            return
        begun = time.monotonic()
        first = {self.rows[i].request: i for i in reversed(self.wanted)}
        shown = {
            request: preview.jpeg(self._pipeline.preview(values[i]), (self.key.width, self.key.height))
            for request, i in first.items()
            if i not in self._bad
        }
        self.previews = {request: data for request, data in shown.items() if data}
        self._pace.spent(time.monotonic() - begun)

    def _outcome(self, row: int, painted: Painted) -> Outcome:
        values = painted.pictures[row]
        if row in self._bad or not bool(values.isfinite().all()):
            return no_picture()
        if painted.unsafe and painted.unsafe[row]:
            return Rejected("text: the model's own safety checker refuses this picture; change the text", code="unsafe")
        drawn = self.rows[row].wish.drawn(self.rows[row].number)
        return Picture(data=png(preview.pixels(values), drawn, self._version), media_type=MEDIA_TYPE, drawn=drawn)


def no_picture() -> Rejected:
    return Rejected(
        "the model computed no picture but values that are no numbers; other settings may help (steps, guidance, "
        "scheduler), or `precision: float32` in the model's settings",
        code="no_picture",
    )
