"""The cells of the context: which sequence holds what, who waits there for the next turn, who is paged out.

It carries out on the machine what `cache` (the books) and `paging` (RAM and disk) say, and knows no schedule. What
always holds: the books and the machine agree; a request begins with the longest beginning that may serve it.
"""

from __future__ import annotations

from array import array
from typing import Literal

from workers.llama.engine.cache import Cut, Match, PrefixTree
from workers.llama.engine.machine import Machine
from workers.llama.engine.paging import Key, Page, Pages
from workers.llama.engine.request import Running

GROWTH_TOKENS = 64
"""Cells kept free for each running answer when a new request is let in."""
IDLE_STEPS_MAX = 128
"""After so many steps an idle conversation is paged out, for every cell in use costs each step: a processor looks at
all of them. What is the operator's stays for those who come, and so does what has no page."""
KEPT_STEPS_MAX = 4_000
"""After so many that goes, too."""
LOOK_STEPS = 32
RESTORE_MIN = 32
"""Tokens that a page must bring beyond what the context has: fewer are computed as fast."""

Begun = Literal["begun", "full", "reading"]


class Cells:
    """All sequences of one machine. Times are the engine's step numbers."""

    def __init__(self, machine: Machine, pages: Pages | None, *, reuse: bool) -> None:
        self._machine = machine
        self._pages = pages if reuse else None
        self._reuse = reuse
        self._tree = PrefixTree()
        self._free = list(range(machine.sequences - 1, -1, -1))
        self._parked: dict[int, Running] = {}

    @property
    def used(self) -> int:
        """Cells in use by running and idle conversations."""
        return self._tree.cells

    def match(self, r: Running) -> int:
        """How much of its prompt a request would find in the context."""
        return self._match(r).length

    def begin(self, r: Running, running: list[Running], step: int) -> Begun:
        """Give `r` a sequence with its longest known beginning, if there will be cells for the rest.

        `reading`: its page comes from the disk; ask again.
        """
        found = self._match(r)
        page, length = self._paged(r, found.length)
        state = None
        if page is not None and self._pages is not None:
            state = self._pages.state(page)
            if state is None:
                return "reading"
            found = Match()
        if not self._free and not self._free_one(found.seq):
            return "full"
        seq = self._free[-1]
        self._tree.start(seq, found.seq, found.length, r.work.adapter)
        wanted = len(r.tokens) - found.length if page is None else max(len(r.tokens), len(page.tokens))
        committed = self._tree.cells - self._tree.spare() + wanted
        committed += sum(o.left for o in running) + GROWTH_TOKENS * (len(running) + 1)
        if committed > self._machine.cells and running:
            self._tree.cut(seq, 0)
            return "full"
        self._free.pop()
        if found.length:
            self._machine.copy(found.seq, seq, found.length)
        r.seq, r.done = seq, found.length
        if page is not None and state is not None and self._restore(r, page, length, state):
            r.done = length
        if r.cached < 0:
            r.cached = r.done
        self._supersede(r)
        return "begun"

    def room(self, tokens: int) -> bool:
        """Whether there are cells for so many tokens more, once idle conversations have made room."""
        while self._tree.cells + tokens > self._machine.cells:
            if not self.give_up():
                return False
        return True

    def give_up(self) -> bool:
        """Free cells of the least valuable idle conversation; False when there is none."""
        cut = self._tree.weakest()
        if cut is None:
            return False
        self._page_out(cut.seq)
        self._shorten(cut)
        return True

    def computed(self, r: Running, start: int, tokens: array[int]) -> None:
        """`tokens` have got cells from position `start` on."""
        r.done = start + len(tokens)
        if start >= r.work.operator:
            self._tree.extend(r.seq, tokens, r.work.owner)
            return
        shared = r.work.operator - start
        self._tree.extend(r.seq, tokens[:shared], r.work.above)
        self._tree.extend(r.seq, tokens[shared:], r.work.owner)

    def cut(self, r: Running, keep: int) -> None:
        """Take cells of `r` from position `keep` on: what was drafted in vain."""
        self._tree.cut(r.seq, keep)
        self._machine.cut(r.seq, keep)
        r.done = keep

    def rest(self, r: Running, step: int) -> None:
        """`r` is finished; its cells wait for the conversation's next turn."""
        if self._reuse and r.done:
            self._tree.rest(r.seq, step)
            self._parked[r.seq] = r
        else:
            self.drop(r.seq)

    def preempt(self, r: Running) -> None:
        """Take the cells of `r`, which is not finished; what it has is kept outside the context, if worth it."""
        self._parked[r.seq] = r
        self._page_out(r.seq)
        self.drop(r.seq)

    def drop(self, seq: int) -> None:
        self._tree.cut(seq, 0)
        self._machine.cut(seq, 0)
        self._parked.pop(seq, None)
        self._free.append(seq)

    def forget_old(self, step: int) -> None:
        """Page out what has been idle for too long; looked for now and then."""
        if step % LOOK_STEPS:
            return
        for seq in self._tree.older(step - KEPT_STEPS_MAX):
            self._page_out(seq)
            self.drop(seq)
        for seq in self._tree.older(step - IDLE_STEPS_MAX):
            keep = self._tree.stem(seq)
            if keep < self._tree.length(seq) and self._page_out(seq):
                self._shorten(Cut(seq, keep))

    def _shorten(self, cut: Cut) -> None:
        """Give up cells of an idle conversation."""
        if cut.keep == 0:
            self.drop(cut.seq)
        else:
            self._tree.cut(cut.seq, cut.keep)
            self._machine.cut(cut.seq, cut.keep)
            self._parked.pop(cut.seq, None)

    # -- beginnings

    def _match(self, r: Running) -> Match:
        """A beginning of the sender's own that ends within the operator's part is not gone on from: what comes behind
        it could never serve others."""
        work = r.work
        if not self._reuse:
            return Match()
        found = self._tree.match(r.tokens[:-1], work.owner, work.adapter)
        if found.length < min(work.operator, len(r.tokens) - 1):
            found = self._tree.match(r.tokens[: min(work.operator, len(r.tokens) - 1)], work.above, work.adapter)
        return found

    def _paged(self, r: Running, known: int) -> tuple[Page | None, int]:
        """A page that brings more than the context has, and how much of it is of use."""
        found = self._pages.find(_key(r), r.tokens[:-1]) if self._pages is not None else None
        if found is None or found[1] < known + RESTORE_MIN or len(found[0].tokens) > self._machine.cells:
            return None, 0
        return found

    def _restore(self, r: Running, page: Page, length: int, state: bytes | bytearray | memoryview) -> bool:
        """Put a page's state into the empty sequence of `r`, cut to the `length` that it shares with it."""
        if not self.room(len(page.tokens)) or not self._machine.restore(r.seq, state):
            return False
        at = 0
        for count, owner in page.spans:
            self._tree.extend(r.seq, page.tokens[at : at + count], owner)
            at += count
        self._tree.cut(r.seq, length)
        self._machine.cut(r.seq, length)
        return True

    def _page_out(self, seq: int) -> bool:
        """Save a sequence that is about to lose cells, unless that would cost more than it saves; tells if it did."""
        r = self._parked.get(seq)
        if r is None or self._pages is None or not self._pages.wants(r.done) or self._tree.length(seq) != r.done:
            return False
        state = self._machine.save(seq)
        return len(state) > 0 and self._pages.put(_key(r), r.tokens[: r.done], self._tree.spans(seq), state)

    def _free_one(self, wanted: int) -> bool:
        """A sequence for a new request: that of the longest unused idle conversation, but not the `wanted` one."""
        for seq in self._tree.idle:
            if seq != wanted:
                self._page_out(seq)
                self.drop(seq)
                return True
        return False

    def _supersede(self, r: Running) -> None:
        """Drop earlier turns of the same conversation, and sequences of which others hold nearly everything."""
        work = r.work
        for old, other in list(self._parked.items()):
            same = other.work.owner == work.owner and other.work.adapter == work.adapter
            if same and other.work.conversation == work.conversation != "":
                self.drop(old)
        while (old := self._tree.redundant()) >= 0:
            self.drop(old)


def _key(r: Running) -> Key:
    return Key(r.work.owner, r.work.adapter)
