"""The requests of one model: which of them the painter is at, how far it is, and how each ends.

A lane calls `add`, `cancel` and `step`. What always holds: every request that was added gets exactly one end; a round
is left as soon as nobody waits for any of its pictures; what goes wrong in a round ends its requests alone, and the
next round is computed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from schemas.errors import Retryable, RoostError
from schemas.message import Usage
from schemas.picture import Progress
from workers import Finished, Job, Picture, Piece
from workers.diffusion import memory
from workers.diffusion.painter import GivenUp, Painter, Work
from workers.diffusion.round import Outcome, Round, Row
from workers.diffusion.schedule import Order, next_round, rounds_left
from workers.diffusion.wishes import Key, Wish

log = logging.getLogger(__name__)

STEP_S = 0.05
"""The lane waits so long for the painter's next pause before it looks at its commands again."""
TOLD_S = 0.2
"""Between two pieces of progress that bring no preview."""


class _Open(Struct):
    """A request that has not ended."""

    job: Job
    wish: Wish
    order: Order[Key]
    pictures: list[Picture] = []
    rounds: int = 0
    """That are done."""
    told_at: float = 0.0


class Rounds:
    """Made with the painter that computes, `made` that makes a round, and `room`: pictures of a key at once."""

    def __init__(
        self, painter: Painter, made: Callable[[Key, Sequence[Row]], Round], room: Callable[[Key], int]
    ) -> None:
        self._painter = painter
        self._made = made
        self._room = room
        self._open: dict[str, _Open] = {}
        self._ended: list[Piece] = []
        self._round: Round | None = None
        self._work: Work[list[Outcome | None]] | None = None
        self._told = 0

    def add(self, job: Job, wish: Wish) -> None:
        order = Order(job.request, wish.key, wish.pictures)
        self._open[job.request] = _Open(job, wish, order)

    def refuse(self, request: str, error: RoostError) -> None:
        """End a request that was never open."""
        self._ended.append(Piece(request, finished=Finished(finish="error", error=error)))

    def cancel(self, request: str) -> None:
        if request in self._open:
            self._end(request, Finished(finish="cancelled"))

    def step(self) -> list[Piece]:
        """Let the painter do a step, and tell what came of it; returns within some tens of milliseconds, also where a
        step takes long."""
        for request, each in list(self._open.items()):
            if each.job.cancelled is not None and each.job.cancelled.is_set():
                self.cancel(request)
        if self._work is None:
            self._begin()
        if self._work is not None and self._round is not None:
            done = self._painter.step(STEP_S)
            self._ended += self._progress(self._round)
            if done:
                self._collect(self._round, self._work)
                self._round = self._work = None
        pieces, self._ended = self._ended, []
        return pieces

    def _begin(self) -> None:
        orders = [each.order for each in self._open.values()]
        shares = next_round(orders, self._room)
        if not shares:
            return
        rows = [
            Row(share.request, number, self._open[share.request].wish)
            for share in shares
            for number in range(share.first, share.first + share.count)
        ]
        self._round = self._made(rows[0].wish.key, rows)
        self._work = Work(self._round.perform)
        self._painter.begin(self._work)
        self._told = 0

    def _progress(self, round_: Round) -> Iterator[Piece]:
        """To each request in the round: its first step at once, then what is worth it."""
        step, steps = round_.at
        previews, round_.previews = round_.previews, {}
        if step <= self._told:
            return
        first, self._told, now = self._told == 0, step, time.monotonic()
        for request in dict.fromkeys(row.request for row in round_.rows):
            each = self._open.get(request)
            if each is None or not (first or request in previews or now - each.told_at >= TOLD_S):
                continue
            each.told_at = now
            count = sum(row.request == request for row in round_.rows)
            more = rounds_left(each.order.left - count, self._room(round_.key))
            at = Progress(
                step=each.rounds * steps + step,
                steps=(each.rounds + 1 + more) * steps,
                preview=previews.get(request, b""),
            )
            yield Piece(request, progress=at)

    def _collect(self, round_: Round, work: Work[list[Outcome | None]]) -> None:
        """The round is over: pictures to their requests, and ends to those that have all of theirs."""
        if work.error is not None or work.result is None:
            error = _failure(work.error)
            for row in round_.rows:
                self._end(row.request, Finished(finish="error", error=error))
            return
        for row, outcome in zip(round_.rows, work.result, strict=True):
            each = self._open.get(row.request)
            if each is None:
                continue
            if isinstance(outcome, Picture):
                each.pictures.append(outcome)
                each.order.done += 1
            else:
                self._end(row.request, Finished(finish="error", error=outcome))
        for request in dict.fromkeys(row.request for row in round_.rows):
            if (each := self._open.get(request)) is None:
                continue
            each.rounds += 1
            if not each.order.left:
                usage = Usage(prompt_tokens=each.wish.tokens)
                self._end(request, Finished(usage=usage, notes=each.wish.notes, pictures=tuple(each.pictures)))

    def _end(self, request: str, finished: Finished) -> None:
        """Once; afterwards the request is unknown."""
        if self._open.pop(request, None) is None:
            return
        self._ended.append(Piece(request, finished=finished))
        if self._round is not None:
            self._round.unwanted.add(request)
            if not self._round.wanted:
                self._painter.give_up()


def _failure(error: BaseException | None) -> RoostError:
    """What to tell those whose round ended without a result."""
    if isinstance(error, RoostError):
        return error
    if isinstance(error, GivenUp) or error is None:
        return Retryable("the picture was left before it was done", code="model_unloaded")
    if memory.ran_out(error):
        return Retryable("there is not memory enough for this picture now; a smaller one may fit", code="no_memory")
    log.error("the pipeline failed", exc_info=error)
    return Retryable(f"the model failed: {type(error).__name__}: {str(error)[:300]}", code="model_failed")
