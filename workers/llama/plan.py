"""How large a context to make: window, cells, sequences, threads. Pure: a header and settings in, a `Plan` out."""

from __future__ import annotations

import os
from typing import Protocol

from msgspec import Struct

from workers.llama.gguf import Header

WINDOW_MAX = 8_192
"""Window where the operator names none: long chats fit, and its memory stays modest on small machines."""
WINDOW_UNKNOWN = 2_048
"""Window of a model file that does not say what it was trained for."""
CELLS_PER_SLOT = 1_024
CELL_BYTES_MAX = 1_073_741_824
"""Memory for cells where the operator names no number: a window is always granted, more only below this."""
IDLE_SEQUENCES_PER_SLOT = 3
SEQUENCES_MAX = 128
"""llama.cpp knows 256; each costs a row of logits."""
KV_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
CELL_PAD = 256


class Wishes(Protocol):
    @property
    def context(self) -> int | None: ...
    @property
    def cache(self) -> int | None: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def kv_type(self) -> str: ...


class Plan(Struct, frozen=True, kw_only=True):
    """`window`: tokens of one conversation; `cells`: of all; `cell_bytes`: memory of one cell."""

    window: int
    trained: int
    cells: int
    sequences: int
    threads: int
    threads_fewer: int
    """Threads while another program wants a core; the same as `threads` where the operator named a number."""
    cell_bytes: int

    @property
    def remedy_window(self) -> str:
        """What the operator can do about a prompt that does not fit."""
        if self.trained > self.window:
            return f"raise models[].context (this model was trained for {self.trained})"
        return f"choose a model with a longer context than {self.window} in models[].path"

    @property
    def remedy_memory(self) -> str:
        """What the operator can do when there is no memory for the context."""
        size = self.cells * self.cell_bytes // 1_000_000
        return (
            f"its context of {self.cells} tokens needs {size} MB: "
            "lower models[].context or models[].cache, or set kv_type: q8_0"
        )


def plan(header: Header, wishes: Wishes, slots: int, cores: int | None = None) -> Plan:
    """Choose sizes; what the operator named is taken as it is, up to what must hold together."""
    trained = header.number("context_length")
    window = wishes.context or min(trained or WINDOW_UNKNOWN, WINDOW_MAX)
    cell_bytes = bytes_per_cell(header, wishes.kv_type)
    fitting = CELL_BYTES_MAX // max(cell_bytes, 1)
    cells = max(window, wishes.cache or min(slots * CELLS_PER_SLOT, fitting))
    cells = -(-cells // CELL_PAD) * CELL_PAD
    cores = cores or len(os.sched_getaffinity(0))
    return Plan(
        window=window,
        trained=trained,
        cells=cells,
        sequences=min(slots * (1 + IDLE_SEQUENCES_PER_SLOT) + 2, max(SEQUENCES_MAX, slots + 2)),
        threads=wishes.threads or cores,
        threads_fewer=wishes.threads or max(cores - 1, 1),
        cell_bytes=cell_bytes,
    )


def bytes_per_cell(header: Header, kv_type: str) -> int:
    """Memory of one token's keys and values over all layers; 0 when the header does not say."""
    heads = header.number("attention.head_count")
    kv_heads = header.number("attention.head_count_kv") or heads
    width = header.number("embedding_length") // heads if heads else 0
    keys = header.number("attention.key_length") or width
    values = header.number("attention.value_length") or width
    return int(header.number("block_count") * kv_heads * (keys + values) * KV_BYTES[kv_type])
