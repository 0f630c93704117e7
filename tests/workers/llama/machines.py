"""A machine that computes no model: it keeps every sequence's cells, checks each position, and answers from them.

The next token is a digest of all tokens that the sequence's cells hold and of the adapter that computed them, so that a
wrong copy, a lost cell or a stale one changes the answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2s

from workers.llama.engine.machine import NoCells, Row, Sampled, SamplerSpec, StepFailed

END = 0
WORDS = 50


def next_token(history: Sequence[int], ban_end: bool = False, *, adapter: str = "", sees: int = 0) -> int:
    """What this machine answers after `history`; END about once in twelve. One that `sees` only so many of the last
    tokens repeats itself soon, as models do."""
    seen = history[-sees:] if sees else history
    digest = blake2s(adapter.encode() + b",".join(b"%d" % t for t in seen)).digest()
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

    def forced(self) -> Sequence[int]:
        return ()

    def close(self) -> None:
        self.machine.open_samplers -= 1


class FakeMachine:
    """`bad` tokens make every batch with them fail; `refuse` batches find no cells though there are some."""

    def __init__(
        self, cells: int = 64, sequences: int = 8, batch_max: int = 16, bad: Sequence[int] = (), sees: int = 0
    ) -> None:
        self.cells, self.sequences, self.batch_max, self.wants_max = cells, sequences, batch_max, batch_max
        self.sees = sees
        self.adapter = ""
        self.saved = self.restored = self.sampled = 0
        self.bad = set(bad)
        self.refuse = 0
        self.held: dict[int, list[tuple[int, tuple[str, object]]]] = {}
        self.open_samplers = 0
        self.computed = 0
        self.batches: list[list[Row]] = []
        self._rows: list[Row] = []

    @property
    def used(self) -> int:
        return len({id(cell) for cells in self.held.values() for _, (_, cell) in cells})

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
            held.extend((t, (self.adapter, object())) for t in row.tokens)
        if any(t in self.bad for row in rows for t in row.tokens):
            raise StepFailed("a bad token")
        self._rows = list(rows)
        self.computed += sum(len(row.tokens) for row in rows)

    def sample(self, row: int, token: int, sampler: FakeSampler) -> Sampled:
        wanted = self._rows[row]
        assert 0 <= token < wanted.want
        self.sampled += 1
        end = wanted.start + len(wanted.tokens) - wanted.want + token + 1
        cells = self.held[wanted.seq][:end]
        assert len(cells) == end
        assert {adapter for _, (adapter, _) in cells} == {self.adapter}, "cells of another adapter"
        return Sampled(next_token([t for t, _ in cells], sampler.spec.ban_end, adapter=self.adapter, sees=self.sees))

    def sampler(self, spec: SamplerSpec) -> FakeSampler:
        return FakeSampler(spec, self)

    def copy(self, source: int, target: int, length: int) -> None:
        assert not self.held.get(target)
        assert len(self.held[source]) >= length
        self.held[target] = self.held[source][:length]

    def cut(self, seq: int, keep: int) -> None:
        self.held[seq] = self.held.get(seq, [])[:keep]

    def save(self, seq: int) -> bytes:
        self.saved += 1
        return json.dumps([(t, adapter) for t, (adapter, _) in self.held[seq]]).encode()

    def restore(self, seq: int, state: bytes) -> bool:
        assert not self.held.get(seq)
        cells = json.loads(bytes(state))
        if self.used + len(cells) > self.cells:
            return False
        self.restored += 1
        self.held[seq] = [(t, (adapter, object())) for t, adapter in cells]
        return True

    def use_adapter(self, name: str) -> None:
        self.adapter = name

    def use_threads(self, count: int) -> None:
        self.threads = count

    def piece(self, token: int) -> bytes:
        return b"%d " % token

    def ends(self, token: int) -> bool:
        return token == END
