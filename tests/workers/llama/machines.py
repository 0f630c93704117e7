"""A machine that computes no model: it keeps every sequence's cells, checks each position, and answers from them.

The next token is a digest of all tokens that the sequence's cells hold, so that a wrong copy, a lost cell or a
stale one changes the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2s

from workers.llama.machine import NoCells, Row, SamplerSpec, StepFailed

END = 0
WORDS = 50


def next_token(history: Sequence[int], ban_end: bool = False) -> int:
    """What this machine answers after `history`; END about once in twelve."""
    digest = blake2s(b",".join(b"%d" % t for t in history)).digest()
    if digest[0] % 12 == 0 and not ban_end:
        return END
    return 1 + digest[1] % (WORDS - 1)


class FakeSampler:
    def __init__(self, spec: SamplerSpec, machine: FakeMachine) -> None:
        self.spec = spec
        self.machine = machine
        machine.open_samplers += 1

    def accept(self, tokens: Sequence[int]) -> None:
        pass

    def close(self) -> None:
        self.machine.open_samplers -= 1


class FakeMachine:
    """`bad` tokens make every batch with them fail; `refuse` batches find no cells though there are some."""

    def __init__(self, cells: int = 64, sequences: int = 8, batch_max: int = 16, bad: Sequence[int] = ()) -> None:
        self.cells, self.sequences, self.batch_max = cells, sequences, batch_max
        self.bad = set(bad)
        self.refuse = 0
        self.held: dict[int, list[tuple[int, object]]] = {}
        self.open_samplers = 0
        self.computed = 0
        self.batches: list[list[Row]] = []
        self._rows: list[Row] = []

    @property
    def used(self) -> int:
        return len({id(cell) for cells in self.held.values() for _, cell in cells})

    def compute(self, rows: Sequence[Row]) -> None:
        assert rows
        assert sum(len(row.tokens) for row in rows) <= self.batch_max
        assert len({row.seq for row in rows}) == len(rows)
        if self.refuse:
            self.refuse -= 1
            raise NoCells
        if self.used + sum(len(row.tokens) for row in rows) > self.cells:
            raise NoCells
        self.batches.append(list(rows))
        for row in rows:
            assert 0 <= row.seq < self.sequences
            held = self.held.setdefault(row.seq, [])
            assert len(held) == row.start, "positions must follow each other"
            held.extend((t, object()) for t in row.tokens)
        if any(t in self.bad for row in rows for t in row.tokens):
            raise StepFailed("a bad token")
        self._rows = list(rows)
        self.computed += sum(len(row.tokens) for row in rows)

    def sample(self, picks: Sequence[tuple[int, FakeSampler]]) -> list[int]:
        out = []
        for row, sampler in picks:
            assert self._rows[row].want
            out.append(next_token([t for t, _ in self.held[self._rows[row].seq]], sampler.spec.ban_end))
        return out

    def sampler(self, spec: SamplerSpec) -> FakeSampler:
        return FakeSampler(spec, self)

    def copy(self, source: int, target: int, length: int) -> None:
        assert not self.held.get(target)
        assert len(self.held[source]) >= length
        self.held[target] = self.held[source][:length]

    def cut(self, seq: int, keep: int) -> None:
        self.held[seq] = self.held.get(seq, [])[:keep]

    def use_threads(self, count: int) -> None:
        self.threads = count

    def piece(self, token: int) -> bytes:
        return b"%d " % token

    def ends(self, token: int) -> bool:
        return token == END
