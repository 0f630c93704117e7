"""The step loop: many conversations in one context, one batch a step.

`schedule` says which tokens, `cache` whose cells, `machine` computes; this file only carries out and keeps the
requests' states. What always holds: every added request gets exactly one `Piece` with `finished`; an answer does
not depend on who is in the batch beside it (up to rounding) nor on pre-emption; a failure ends only the requests
that it concerns.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Iterable

from schemas.errors import Retryable, RoostError
from schemas.message import Finish, Usage
from workers import Finished, Piece
from workers.llama.cache import Match, PrefixTree, common, serves
from workers.llama.machine import PENALTY_TOKENS, Machine, NoCells, Row, StepFailed
from workers.llama.request import Running, Work
from workers.llama.schedule import Prompt, prompt_budget, share_out, victim
from workers.llama.threads import ThreadChoice

log = logging.getLogger(__name__)

STEP_S = 0.06
"""What a step should take while generations run: their readers see a gap of this length, and a cancel waits for it."""
QUIET_STEP_S = 0.12
"""The same when only prompts are computed; larger batches are a little more efficient."""
GROWTH_TOKENS = 64
"""Cells kept free for each running answer when a new request is let in."""
IDLE_STEPS_MAX = 4_000
"""Every cell in use costs each step a little; after so many steps that exceeds what recomputing it would cost."""


class Engine:
    """Call `add`, `step` and `cancel` from one thread."""

    def __init__(
        self,
        machine: Machine,
        threads: ThreadChoice | None = None,
        *,
        reuse: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`threads`: chooses their number for each step; without it the machine's own is kept."""
        self._machine = machine
        self._threads = threads
        self._threads_now = threads.current if threads else 0
        self._reuse = reuse
        self._clock = clock
        self._tree = PrefixTree()
        self._free = list(range(machine.sequences - 1, -1, -1))
        self._waiting: list[Running] = []
        self._running: list[Running] = []
        self._cancelled: set[str] = set()
        self._parked: dict[int, tuple[str, str]] = {}
        self._order = 0
        self._steps = 0
        self._token_s = 0.0

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def cells_used(self) -> int:
        """Cells in use by running and idle conversations."""
        return self._tree.cells

    def warm_up(self, tokens: array[int]) -> None:
        """Compute a token, so that weights are in memory and the pace is known before the first request."""
        for _ in range(2):
            begun = self._clock()
            self._machine.compute([Row(0, 0, tokens[:1], want=True)])
            self._machine.cut(0, 0)
            self._token_s = self._clock() - begun

    def add(self, work: Work) -> None:
        self._order += 1
        self._waiting.append(Running(work, self._order))

    def cancel(self, request: str) -> None:
        """End a request with the next step; an unknown one is ignored."""
        if any(r.work.request == request for r in (*self._waiting, *self._running)):
            self._cancelled.add(request)

    def step(self) -> list[Piece]:
        """One batch at most; returns what it brought."""
        pieces = self._drop_cancelled()
        self._admit()
        rows = self._secure(self._plan())
        if rows:
            self._steps += 1
            self._compute([self._row(r, n) for r, n in rows], [r for r, _ in rows], pieces)
            self._forget_old()
        return pieces

    def close(self) -> None:
        """Free the samplers; the machine belongs to the caller."""
        for r in (*self._waiting, *self._running):
            if r.sampler is not None:
                r.sampler.close()
        self._waiting, self._running = [], []

    # -- who takes part

    def _drop_cancelled(self) -> list[Piece]:
        if not self._cancelled:
            return []
        gone = [r for r in (*self._waiting, *self._running) if r.work.request in self._cancelled]
        self._cancelled.clear()
        return [self._finish(r, "cancelled") for r in gone]

    def _admit(self) -> None:
        """Give waiting requests a sequence, as far as cells reach; the oldest first."""
        for r in sorted(self._waiting, key=lambda r: r.order):
            if self._soon_shared(r):
                continue
            if not self._begin(r):
                return
            self._waiting.remove(r)
            self._running.append(r)

    def _soon_shared(self, r: Running) -> bool:
        """Whether a running prompt is about to compute what `r` could take over; waiting beats doing it twice."""
        if not self._reuse:
            return False
        soon = 0
        for other in self._running:
            if other.done < other.prompt:
                n = common(other.tokens, r.tokens)
                if other.work.owner != r.work.owner:
                    above = serves(other.work.above, r.work.owner)
                    n = min(n, other.work.operator, r.work.operator) if above else 0
                soon = max(soon, min(n, len(r.tokens) - 1))
        return soon > 0 and soon > self._match(r).length

    def _match(self, r: Running) -> Match:
        return self._tree.match(r.tokens[:-1], r.work.owner) if self._reuse else Match()

    def _begin(self, r: Running) -> bool:
        """Let `r` share its longest prefix, if there will be cells for the rest."""
        found = self._match(r)
        if not self._free:
            dropped = next((s for s in self._tree.idle if s != found.seq), -1)
            if dropped < 0:
                return False
            self._drop(dropped)
        seq = self._free[-1]
        self._tree.start(seq, found.seq, found.length)
        committed = self._tree.cells - self._tree.spare() + len(r.tokens) - found.length
        committed += sum(o.left for o in self._running) + GROWTH_TOKENS * (len(self._running) + 1)
        if committed > self._machine.cells and self._running:
            self._tree.cut(seq, 0)
            return False
        self._free.pop()
        if found.length:
            self._machine.copy(found.seq, seq, found.length)
        r.seq, r.done = seq, found.length
        if r.cached < 0:
            r.cached = found.length
        if r.sampler is None:
            r.sampler = self._machine.sampler(r.work.sampler)
            r.sampler.accept(r.work.tokens[-PENALTY_TOKENS:])
        key = (r.work.owner, r.work.conversation)
        superseded = [s for s, k in self._parked.items() if k == key and r.work.conversation]
        for old in superseded:
            self._drop(old)
        while (old := self._tree.redundant()) >= 0:
            self._drop(old)
        return True

    # -- what a step computes

    def _plan(self) -> list[tuple[Running, int]]:
        """Each participant and how many of its tokens: answers first, then pieces of prompts."""
        answers = [r for r in self._running if r.answering]
        prompts = {r.order: r for r in self._running if not r.answering}
        target = STEP_S if answers else QUIET_STEP_S
        budget = prompt_budget(len(answers), self._token_s, target, self._machine.batch_max)
        shares = share_out([Prompt(o, r.left) for o, r in sorted(prompts.items())], budget)
        return [(r, 1) for r in answers] + [(prompts[s.id], s.tokens) for s in shares]

    def _secure(self, rows: list[tuple[Running, int]]) -> list[tuple[Running, int]]:
        """See to it that there are cells for `rows`; pre-empt the newest request where idle ones do not suffice."""
        while rows and self._tree.cells + sum(n for _, n in rows) > self._machine.cells:
            if self._give_up():
                continue
            chosen = victim([(r.seq, r.order) for r in self._running])
            if chosen is None:
                break
            self._preempt(next(r for r in self._running if r.seq == chosen))
            rows = [(r, n) for r, n in rows if r.seq >= 0]
        return rows

    def _give_up(self) -> bool:
        cut = self._tree.weakest()
        if cut is None:
            return False
        if cut.keep == 0:
            self._drop(cut.seq)
        else:
            self._tree.cut(cut.seq, cut.keep)
            self._machine.cut(cut.seq, cut.keep)
            self._parked.pop(cut.seq, None)
        return True

    def _preempt(self, r: Running) -> None:
        """Take the cells of `r`; it waits and computes them again later, answer so far included."""
        self._drop(r.seq)
        r.seq, r.done = -1, 0
        self._running.remove(r)
        self._waiting.append(r)

    def _row(self, r: Running, n: int) -> Row:
        return Row(r.seq, r.done, r.tokens[r.done : r.done + n], r.done + n == len(r.tokens))

    def _compute(self, rows: list[Row], owners: list[Running], pieces: list[Piece]) -> None:
        """Decode, account, sample. A batch that fails is tried again row by row, so that only the culprit fails."""
        self._set_threads()
        begun = self._clock()
        try:
            self._machine.compute(rows)
        except NoCells:
            self._out_of_cells(owners, pieces)
            return
        except StepFailed as error:
            for row in rows:
                self._machine.cut(row.seq, row.start)
            if len(rows) > 1:
                for row, r in zip(rows, owners, strict=True):
                    if r.seq == row.seq:
                        self._compute([row], [r], pieces)
                return
            log.exception("request %s cannot be computed", owners[0].work.request)
            pieces.append(self._fail(owners[0], RoostError(f"the model could not compute this request: {error}")))
            return
        tokens = sum(len(row.tokens) for row in rows)
        self._pace(tokens, len(rows), self._clock() - begun)
        self._account(rows, owners)
        wanted = [(i, r) for i, (row, r) in enumerate(zip(rows, owners, strict=True)) if row.want]
        if wanted:
            chosen = self._machine.sample([(i, r.sampler) for i, r in wanted if r.sampler is not None])
            for (_, r), token in zip(wanted, chosen, strict=True):
                pieces.extend(self._take(r, token))

    def _account(self, rows: list[Row], owners: list[Running]) -> None:
        for row, r in zip(rows, owners, strict=True):
            shared = max(0, min(r.work.operator - row.start, len(row.tokens)))
            self._tree.extend(r.seq, row.tokens[:shared], r.work.above)
            self._tree.extend(r.seq, row.tokens[shared:], r.work.owner)
            r.done += len(row.tokens)

    def _set_threads(self) -> None:
        if self._threads is not None and (wanted := self._threads.next()) != self._threads_now:
            self._machine.use_threads(wanted)
            self._threads_now = wanted

    def _pace(self, tokens: int, rows: int, seconds: float) -> None:
        """Moving average of the time a token takes, which sizes the next steps' pieces of prompts."""
        if self._threads is not None:
            self._threads.took((tokens, rows), seconds)
        now = seconds / tokens
        self._token_s = now if not self._token_s else 0.8 * self._token_s + 0.2 * now

    def _out_of_cells(self, owners: list[Running], pieces: list[Piece]) -> None:
        """The context is fuller than the books say (it may be fragmented): make room and try in the next step."""
        while self._give_up():
            pass
        chosen = victim([(r.seq, r.order) for r in self._running])
        if chosen is not None:
            self._preempt(next(r for r in self._running if r.seq == chosen))
        else:
            error = Retryable("the model's context has no room for this request now", code="no_cells")
            pieces.append(self._fail(owners[0], error))

    # -- what comes of it

    def _take(self, r: Running, token: int) -> Iterable[Piece]:
        """One sampled token: its text, and perhaps the end."""
        if self._machine.ends(token):
            yield self._finish(r, "stop")
            return
        r.tokens.append(token)
        text = r.text.feed(self._machine.piece(token))
        if r.text.stopped or r.generated >= r.work.reply_max:
            yield self._finish(r, "stop" if r.text.stopped else "length", text)
        elif text:
            r.shown = True
            yield Piece(r.work.request, text)

    def _finish(self, r: Running, finish: Finish, text: str = "") -> Piece:
        text += r.text.close()
        notes = r.work.notes
        if finish == "length" and r.work.clipped:
            notes = (*notes, r.work.clipped)
        if finish == "stop" and not (r.shown or text):
            notes = (*notes, "The model ended its answer without a word.")
        self._leave(r)
        usage = Usage(r.prompt, r.generated, max(r.cached, 0))
        return Piece(r.work.request, text, Finished(finish=finish, usage=usage, notes=notes))

    def _fail(self, r: Running, error: RoostError) -> Piece:
        self._leave(r, keep=False)
        usage = Usage(r.prompt, r.generated, max(r.cached, 0))
        return Piece(r.work.request, "", Finished(finish="error", usage=usage, error=error))

    def _leave(self, r: Running, *, keep: bool = True) -> None:
        """Close the sampler; what is computed stays for the conversation's next turn."""
        if r in self._waiting:
            self._waiting.remove(r)
        else:
            self._running.remove(r)
        if r.sampler is not None:
            r.sampler.close()
            r.sampler = None
        if r.seq < 0:
            return
        if keep and self._reuse and r.done:
            self._tree.rest(r.seq, self._steps)
            self._parked[r.seq] = (r.work.owner, r.work.conversation)
        else:
            self._drop(r.seq)
        r.seq = -1

    # -- cells

    def _drop(self, seq: int) -> None:
        self._tree.cut(seq, 0)
        self._machine.cut(seq, 0)
        self._parked.pop(seq, None)
        self._free.append(seq)

    def _forget_old(self) -> None:
        for seq in self._tree.older(self._steps - IDLE_STEPS_MAX):
            self._drop(seq)


def failed(request: str, error: RoostError) -> Piece:
    """The only piece of a request that never came to be computed."""
    return Piece(request, "", Finished(finish="error", error=error))
