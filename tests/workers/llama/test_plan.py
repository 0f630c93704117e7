"""How large a context becomes."""

from __future__ import annotations

import pytest

from workers.llama import LlamaBackend
from workers.llama.gguf import Header, Value
from workers.llama.plan import CELL_BYTES_MAX, plan

SMALL: dict[str, Value] = {
    "general.architecture": "llama", "llama.context_length": 8192, "llama.block_count": 30,
    "llama.embedding_length": 576, "llama.attention.head_count": 9, "llama.attention.head_count_kv": 3,
}  # fmt: skip


def header(**other: Value) -> Header:
    return Header(3, {**SMALL, **{f"llama.{k}": v for k, v in other.items()}}, 0, 0)


def test_the_window_comes_from_the_model() -> None:
    assert plan(header(), LlamaBackend.Settings(), 8).window == 8192
    assert plan(header(context_length=2048), LlamaBackend.Settings(), 8).window == 2048
    assert plan(header(context_length=131_072), LlamaBackend.Settings(), 8).window == 8192


def test_the_operators_window_is_taken_as_it_is() -> None:
    made = plan(header(), LlamaBackend.Settings(context=1000), 8)
    assert made.window == 1000
    assert made.cells >= 1000
    assert "trained for 8192" in made.remedy_window


@pytest.mark.parametrize("slots", [1, 8, 40])
def test_a_window_always_fits_the_cells_and_a_sequence_is_always_left(slots: int) -> None:
    made = plan(header(context_length=32_768, block_count=200), LlamaBackend.Settings(), slots)
    assert made.cells >= made.window
    assert made.cells % 256 == 0
    assert made.sequences >= slots + 2


def test_memory_of_cells_is_known_and_bounded() -> None:
    assert plan(header(), LlamaBackend.Settings(), 8).cell_bytes == 23_040
    assert plan(header(), LlamaBackend.Settings(kv_type="q8_0"), 8).cell_bytes == 12_240
    large = plan(header(context_length=4096, block_count=80, embedding_length=8192), LlamaBackend.Settings(), 64)
    assert large.cells * large.cell_bytes <= max(CELL_BYTES_MAX, large.window * large.cell_bytes)
