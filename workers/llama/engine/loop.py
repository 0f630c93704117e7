"""The step loop: many conversations in one context, a batch or two a step.

`schedule` says which tokens, `cells` where they go, `draft` what might come next, `machine` computes; this file only
carries out and keeps the requests' states. What always holds: every added work gets exactly one `Piece` with
`finished`; an answer does not depend on who is in the batch beside it (up to rounding) nor on pre-emption, paging or
drafts; a failure ends only the requests that it concerns.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Iterator

from schemas.errors import Retryable, RoostError
from schemas.message import Finish, TokenLogprob, TopToken, Usage
from workers import Finished, Piece
from workers.llama.engine.cache import common, serves
from workers.llama.engine.cells import Cells
from workers.llama.engine.draft import worth
from workers.llama.engine.machine import PENALTY_TOKENS, Machine, NoCells, Row, Sampled, StepFailed
from workers.llama.engine.pace import Pace
from workers.llama.engine.paging import Pages
from workers.llama.engine.request import Running, Work
from workers.llama.engine.schedule import Prompt, next_group, prompt_budget, share_out, victim
from workers.llama.engine.threads import ThreadChoice

log = logging.getLogger(__name__)

STEP_S = 0.12
"""What a step should take while generations run: their readers see a gap of this length, and a cancel waits for it.
Shorter steps take too few tokens of a prompt beside the answers, and all of it takes longer."""
TILE = 64
"""Tokens of a batch from which llama.cpp computes attention on a processor in tiles. Far into a context, a batch of a
few tokens less takes longer than one of so many. A tile reads the cells of everybody who is in it."""
TILE_STEP_S = 0.8
"""What a prompt's part of a step may take to reach TILE: prompts are then computed up to twice as fast. Twice TILE
gains little more."""
QUIET_STEP_S = 0.24
"""The same when only prompts are computed; larger batches are a little more efficient."""
EASED_STEP_S = 0.48
"""The same for both while the machine is to save power: larger batches wake it less often."""
WARM_TOKENS = 32
"""The largest step that is tried before the first request; larger ones are computed alike."""
WARM_WALL_S = 1.0
"""After this no further step is tried, whoever has the processor."""
WARM_S = 0.2
"""Of the processor; a large model needs no more than its first steps, which read all of its weights."""
DISK_WAIT_S = 0.02
"""How long a step waits for a page when there is nothing else to do."""


class Engine:
    """Call `add`, `step` and `cancel` from one thread."""

    def __init__(
        self,
        machine: Machine,
        threads: ThreadChoice | None = None,
        *,
        pages: Pages | None = None,
        reuse: bool = True,
        draft: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`threads`: chooses their number for each step; without it the machine's own is kept.

        `reuse`: whether sequences may share and be cut; a recurrent model's cannot, and are not drafted for either.
        """
        self._machine = machine
        self._threads = threads
        self._threads_now = threads.current if threads else 0
        self._reuse = reuse
        self._draft = draft and reuse
        self._clock = clock
        self._cells = Cells(machine, pages, reuse=reuse)
        self._pages = pages
        self._waiting: list[Running] = []
        self._running: list[Running] = []
        self._cancelled: set[str] = set()
        self._adapter = ""
        self._served: dict[str, int] = {}
        self._order = 0
        self._steps = 0
        self._pace = Pace()
        self._calm = self._pace
        """What steps took in `warm_shapes`, without the time in which other threads had the processor."""
        self.eased = False
        """Save power: longer steps, at the price of longer gaps."""

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def cells_used(self) -> int:
        """Cells in use by running and idle conversations."""
        return self._cells.used

    def warm_up(self, tokens: array[int]) -> None:
        """Compute a token, so that weights are in memory and the pace is known before the first request."""
        for _ in range(2):
            begun = self._clock()
            self._machine.compute([Row(0, 0, tokens[:1], want=1)])
            self._machine.cut(0, 0)
            seconds = self._clock() - begun
        self._pace.took(1, seconds)

    def warm_shapes(self, token: array[int], slots: int) -> None:
        """Compute steps of the sizes that will come: 1, 2, 4 … and `slots` answers at once, and a piece of a prompt."""
        self._calm = Pace()
        most = min(slots, self._machine.sequences, self._machine.wants_max, WARM_TOKENS)
        answers = sorted({n for n in (1, 2, 4, 8, 16) if n < most} | {most})
        shapes = [[Row(seq, 0, token, want=1) for seq in range(n)] for n in answers]
        spent, started = 0.0, self._clock()
        for rows in (*shapes, [Row(0, 0, token * min(WARM_TOKENS, self._machine.batch_max), want=1)]):
            begun = time.thread_time()
            self._machine.compute(rows)
            took = time.thread_time() - begun
            for row in rows:
                self._machine.cut(row.seq, 0)
            self._calm.took(sum(len(row.tokens) for row in rows), took)
            spent += took
            if spent > WARM_S or self._clock() - started > WARM_WALL_S:
                break

    def forget_pace(self) -> None:
        """Steps have been slow because other threads came first, and are not any more."""
        self._pace, self._calm = self._calm, Pace()

    def add(self, work: Work) -> None:
        self._order += 1
        self._waiting.append(Running(work, self._order))

    def cancel(self, request: str) -> None:
        """End a request with the next step; an unknown one is ignored."""
        if any(r.work.request == request for r in (*self._waiting, *self._running)):
            self._cancelled.add(request)

    def step(self) -> list[Piece]:
        """A token or more for everybody who can have one; returns what it brought."""
        pieces = self._drop_cancelled()
        reading = self._admit(pieces)
        plan = self._secure(self._plan())
        if plan:
            self._steps += 1
            for batch in self._batches(plan):
                if here := [(r, n) for r, n in batch if r.seq >= 0]:
                    self._compute([self._row(r, n) for r, n in here], [r for r, _ in here], pieces)
            self._cells.forget_old(self._steps)
        elif reading and self._pages is not None:
            self._pages.wait(DISK_WAIT_S)
        return pieces

    def close(self) -> None:
        """Free samplers and pages; the machine belongs to the caller."""
        for r in (*self._waiting, *self._running):
            if r.sampler is not None:
                r.sampler.close()
        self._waiting, self._running = [], []
        if self._pages is not None:
            self._pages.close()

    # -- who takes part

    def _drop_cancelled(self) -> list[Piece]:
        if not self._cancelled:
            return []
        gone = [r for r in (*self._waiting, *self._running) if r.work.request in self._cancelled]
        self._cancelled.clear()
        return [self._finish(r, "cancelled") for r in gone]

    def _admit(self, pieces: list[Piece]) -> bool:
        """Give waiting requests a sequence, as far as cells reach, the oldest first; tells if a page is awaited."""
        reading = False
        for r in sorted(self._waiting, key=lambda r: r.order):
            if self._soon_shared(r):
                continue
            try:
                self._make_sampler(r)
            except RoostError as error:
                pieces.append(self._fail(r, error))
                continue
            begun = self._cells.begin(r, self._running, self._steps)
            if begun == "full":
                break
            if begun == "reading":
                reading = True
                continue
            self._waiting.remove(r)
            self._running.append(r)
        return reading

    def _make_sampler(self, r: Running) -> None:
        """Before the cells, because its constraint may be refused."""
        if r.sampler is None:
            r.sampler = self._machine.sampler(r.work.sampler)
            r.sampler.accept(r.work.tokens[-PENALTY_TOKENS:])

    def _soon_shared(self, r: Running) -> bool:
        """Whether a running prompt is about to compute what `r` could take over; waiting beats doing it twice."""
        if not self._reuse:
            return False
        soon = 0
        for other in self._running:
            if other.done < other.prompt and other.work.adapter == r.work.adapter:
                n = common(other.tokens, r.tokens)
                if other.work.owner != r.work.owner:
                    above = serves(other.work.above, r.work.owner)
                    n = min(n, other.work.operator, r.work.operator) if above else 0
                soon = max(soon, min(n, len(r.tokens) - 1))
        return soon > 0 and soon > self._cells.match(r)

    # -- what a step computes

    def _plan(self) -> list[tuple[Running, int]]:
        """Each participant and how many of its tokens: answers first, drafts with them, then pieces of prompts.

        A batch is computed with one adapter; those who want another one have the next turn.
        """
        self._adapter = next_group({r.work.adapter for r in self._running}, self._served)
        self._served[self._adapter] = self._steps + 1
        group = [r for r in self._running if r.work.adapter == self._adapter]
        answers = [r for r in group if r.answering]
        prompts = {r.order: r for r in group if not r.answering}
        target = EASED_STEP_S if self.eased else STEP_S if answers else QUIET_STEP_S
        fit = self._pace.most(target)
        if prompts and fit < TILE <= self._machine.batch_max and self._pace.affords(TILE, TILE_STEP_S):
            budget = TILE
        else:
            budget = prompt_budget(len(answers), fit, self._machine.batch_max)
        shares = share_out([Prompt(o, r.left) for o, r in sorted(prompts.items())], budget)
        if not shares:
            self._draft_for(answers)
        return [(r, 1 + len(r.draft)) for r in answers] + [(prompts[s.id], s.tokens) for s in shares]

    @staticmethod
    def _batches(plan: list[tuple[Running, int]]) -> list[list[tuple[Running, int]]]:
        """What is computed at once: all of a step, but a tile of prompts apart, whose readers wait for it anyway."""
        answers = [(r, n) for r, n in plan if r.answering]
        prompts = [(r, n) for r, n in plan if not r.answering]
        return [answers, prompts] if answers and sum(n for _, n in prompts) == TILE else [plan]

    def _draft_for(self, answers: list[Running]) -> None:
        """Give each answer the tokens that are worth trying; what a grammar forces is as good as known."""
        tokens = len(answers)
        spare = min(self._machine.wants_max, self._machine.batch_max) - tokens
        for r in answers:
            most = min(spare, r.work.reply_max - r.generated - 1)
            if most <= 0 or r.sampler is None:
                continue
            forced = r.sampler.forced()
            r.forced = bool(forced)
            if forced:
                r.draft = array("i", forced[:most])
            elif self._draft and not r.lookup.quiet(self._steps):
                size = worth(self._pace, len(answers), tokens, r.lookup.trust, most)
                r.draft = r.lookup.propose(r.tokens, size) if size else r.draft
            tokens += len(r.draft)
            spare -= len(r.draft)

    def _secure(self, plan: list[tuple[Running, int]]) -> list[tuple[Running, int]]:
        """See to it that there are cells for `plan`; pre-empt the newest request where idle ones do not suffice."""
        while plan and not self._cells.room(sum(n for _, n in plan)):
            chosen = victim([(r.seq, r.order) for r in self._running])
            if chosen is None:
                break
            self._preempt(next(r for r in self._running if r.seq == chosen))
            plan = [(r, n) for r, n in plan if r.seq >= 0]
        return plan

    def _preempt(self, r: Running) -> None:
        """Take the cells of `r`; it waits and gets or computes them again later, answer so far included."""
        self._cells.preempt(r)
        r.seq, r.done, r.draft = -1, 0, array("i")
        self._running.remove(r)
        self._waiting.append(r)

    def _row(self, r: Running, n: int) -> Row:
        own = r.tokens[r.done : r.done + n - len(r.draft)]
        last = r.done + len(own) == len(r.tokens)
        return Row(r.seq, r.done, own + r.draft, 1 + len(r.draft) if last else 0)

    def _compute(self, rows: list[Row], owners: list[Running], pieces: list[Piece]) -> None:
        """Decode, account, sample. A batch that fails is tried again row by row, so that only the culprit fails."""
        self._set_threads()
        begun = self._clock()
        try:
            self._machine.use_adapter(self._adapter)
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
        self._pace.took(sum(len(row.tokens) for row in rows), self._clock() - begun)
        for row, r in zip(rows, owners, strict=True):
            self._cells.computed(r, row.start, row.tokens)
        for i, (row, r) in enumerate(zip(rows, owners, strict=True)):
            if row.want:
                self._sample(i, r, pieces)

    def _sample(self, row: int, r: Running, pieces: list[Piece]) -> None:
        """Choose the next token, and further ones for as long as the draft was right."""
        draft, r.draft = r.draft, array("i")
        assert r.sampler is not None
        hit = False
        for right in range(len(draft) + 1):
            try:
                sampled = self._machine.sample(row, right, r.sampler)
            except RoostError as error:
                pieces.append(self._fail(r, error))
                return
            hit = right < len(draft) and sampled.token == draft[right]
            if not hit and right < len(draft):
                self._cells.cut(r, r.done - len(draft) + right)
            pieces.extend(self._take(r, sampled))
            if not hit or r.seq < 0:
                break
        if draft and not r.forced:
            r.lookup.told(len(draft), right + hit, self._steps)

    def _set_threads(self) -> None:
        if self._threads is not None and (wanted := self._threads.next()) != self._threads_now:
            self._machine.use_threads(wanted)
            self._threads_now = wanted

    def _out_of_cells(self, owners: list[Running], pieces: list[Piece]) -> None:
        """The context is fuller than the books say (it may be fragmented): make room and try in the next step."""
        while self._cells.give_up():
            pass
        for r in owners:
            r.draft = array("i")
        chosen = victim([(r.seq, r.order) for r in self._running])
        if chosen is not None:
            self._preempt(next(r for r in self._running if r.seq == chosen))
        else:
            error = Retryable("the model's context has no room for this request now", code="no_cells")
            pieces.append(self._fail(owners[0], error))

    # -- what comes of it

    def _take(self, r: Running, sampled: Sampled) -> Iterator[Piece]:
        """One sampled token: its text, and perhaps the end."""
        if self._machine.ends(sampled.token):
            yield self._finish(r, "stop")
            return
        r.tokens.append(sampled.token)
        text = r.read(r.work.shown.get(sampled.token) or self._machine.piece(sampled.token))
        logprobs = (self._told(sampled),) if r.work.sampler.logprobs >= 0 else ()
        if r.text.stopped or r.generated >= r.work.reply_max:
            yield self._finish(r, "stop" if r.text.stopped else "length", text, logprobs)
        elif text or logprobs:
            r.shown = r.shown or bool(text)
            yield Piece(r.work.request, text, choice=r.work.choice, logprobs=logprobs)

    def _told(self, sampled: Sampled) -> TokenLogprob:
        def named(token: int) -> tuple[str, tuple[int, ...]]:
            raw = self._machine.piece(token)
            return raw.decode("utf-8", "replace"), tuple(raw)

        text, raw = named(sampled.token)
        top = []
        for token, logprob in sampled.top:
            its, bytes_ = named(token)
            top.append(TopToken(its, logprob, bytes_))
        return TokenLogprob(text, sampled.logprob, raw, tuple(top))

    def _finish(self, r: Running, finish: Finish, text: str = "", logprobs: tuple[TokenLogprob, ...] = ()) -> Piece:
        rest, calls = r.close()
        text += rest
        notes = r.work.notes
        if finish == "length" and r.work.clipped:
            notes = (*notes, r.work.clipped)
        if finish == "stop" and calls:
            finish = "tool_calls"
        if finish == "stop" and not (r.shown or text):
            notes = (*notes, "The model ended its answer without a word.")
        self._leave(r)
        done = Finished(finish=finish, usage=self._usage(r), notes=notes, tool_calls=calls)
        return Piece(r.work.request, text, done, r.work.choice, logprobs)

    def _fail(self, r: Running, error: RoostError) -> Piece:
        self._leave(r, keep=False)
        done = Finished(finish="error", usage=self._usage(r), error=error)
        return Piece(r.work.request, "", done, r.work.choice)

    @staticmethod
    def _usage(r: Running) -> Usage:
        return Usage(r.prompt, r.generated, max(r.cached, 0))

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
        if keep:
            if r.done > len(r.tokens):  # drafted beyond the end of the answer
                self._cells.cut(r, len(r.tokens))
            self._cells.rest(r, self._steps)
        else:
            self._cells.drop(r.seq)
        r.seq = -1


def failed(request: str, error: RoostError) -> Piece:
    """The only piece of a request that never came to be computed."""
    return Piece(request, "", Finished(finish="error", error=error))
