"""Writes a GGUF file of a model's shape with random weights: for speed and memory, where no such model can be had.

It answers nonsense, but computes, loads and fills memory as a real one of its size does; tokenizer and chat template
are the starter model's, cut or padded to the shape's vocabulary. What always holds: the file is never whole in memory,
and the same shape, type and seed give the same bytes.

    python -m tests.tools.synthetic --shape 7b --type q4_0 OUT
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFValueType, GGUFWriter, TokenType
from msgspec import Struct
from msgspec.structs import fields, replace

from tests.tools.blocks import LAYOUTS, Pages, size

STARTER = Path(__file__).resolve().parent.parent.parent / "models" / "text-generation" / "current"
TYPES = {"q4_0": Type.Q4_0, "q4_k": Type.Q4_K, "q8_0": Type.Q8_0}
FILE_TYPES = {"q4_0": 2, "q4_k": 14, "q8_0": 7}
"""llama.cpp's `general.file_type`: mostly Q4_0, Q4_K (small), Q8_0."""
ALIGNMENT = 32


class Shape(Struct, frozen=True, kw_only=True):
    """The sizes of a llama architecture. `heads_kv` under `heads`: grouped heads share keys and values."""

    layers: int
    width: int
    heads: int
    heads_kv: int
    feed_forward: int
    vocabulary: int = 32_000
    context: int = 4_096


SHAPES = {
    "7b": Shape(layers=32, width=4096, heads=32, heads_kv=32, feed_forward=11_008),
    "1b": Shape(layers=22, width=2048, heads=32, heads_kv=4, feed_forward=5632, context=2048),
    "tiny": Shape(layers=2, width=256, heads=4, heads_kv=2, feed_forward=512, vocabulary=2_000, context=512),
}
"""`7b`: Llama-2-7B, `1b`: TinyLlama-1.1B."""


class Tensor(Struct, frozen=True):
    """A matrix of rows × columns, or a row of ones (`kind` F32)."""

    name: str
    rows: int
    columns: int
    kind: Type


def tensors(shape: Shape, kind: Type) -> Iterator[Tensor]:
    """All tensors of the architecture in the file's order; the output matrix is Q6_K, as llama.cpp quantises it."""
    width, head = shape.width, shape.width // shape.heads
    last = Type.Q6_K if kind in (Type.Q4_0, Type.Q4_K) and width % LAYOUTS[Type.Q6_K].weights == 0 else kind
    yield Tensor("token_embd.weight", shape.vocabulary, width, kind)
    for i in range(shape.layers):
        yield Tensor(f"blk.{i}.attn_norm.weight", 1, width, Type.F32)
        yield Tensor(f"blk.{i}.attn_q.weight", width, width, kind)
        yield Tensor(f"blk.{i}.attn_k.weight", head * shape.heads_kv, width, kind)
        yield Tensor(f"blk.{i}.attn_v.weight", head * shape.heads_kv, width, kind)
        yield Tensor(f"blk.{i}.attn_output.weight", width, width, kind)
        yield Tensor(f"blk.{i}.ffn_norm.weight", 1, width, Type.F32)
        yield Tensor(f"blk.{i}.ffn_gate.weight", shape.feed_forward, width, kind)
        yield Tensor(f"blk.{i}.ffn_up.weight", shape.feed_forward, width, kind)
        yield Tensor(f"blk.{i}.ffn_down.weight", width, shape.feed_forward, kind)
    yield Tensor("output_norm.weight", 1, width, Type.F32)
    yield Tensor("output.weight", shape.vocabulary, width, last)


def write(target: Path, shape: Shape, kind: str = "q4_0", *, seed: int = 1, starter: Path = STARTER) -> None:
    """Write the model; `starter` is the GGUF file, or its folder, that lends its tokenizer."""
    path = next(iter(sorted(starter.glob("*.gguf"))), starter) if starter.is_dir() else starter
    rows = list(tensors(shape, TYPES[kind]))
    _check(shape, rows)
    writer = GGUFWriter(None, "llama")
    _describe(writer, shape, kind, seed)
    for key, value, of in _tokenizer(GGUFReader(path), shape.vocabulary):
        writer.add_key_value(key, value, *of)
    for t in rows:
        extent = (t.columns,) if t.kind == Type.F32 else (t.rows, t.columns)
        length = size(t.kind, t.rows * t.columns)
        writer.add_tensor_info(t.name, extent, np.dtype(np.float32), length, raw_dtype=t.kind)
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with target.open("ab") as out:
        pages = Pages(seed)
        for t in rows:
            out.write(bytes(-out.tell() % ALIGNMENT))
            ones = [np.ones(t.columns, dtype="<f4").data.cast("B")]
            for piece in ones if t.kind == Type.F32 else pages.tensor(t.kind, t.rows, t.columns):
                out.write(piece)
        out.write(bytes(-out.tell() % ALIGNMENT))


def _check(shape: Shape, rows: Sequence[Tensor]) -> None:
    """Before anything is written: what llama.cpp could not load, or no block can hold."""
    if shape.width % shape.heads or shape.heads % shape.heads_kv:
        raise ValueError("the width must be a multiple of heads, and heads one of heads_kv")
    for t in rows:
        if t.kind in LAYOUTS and t.columns % LAYOUTS[t.kind].weights:
            raise ValueError(f"{t.name} has rows of {t.columns} weights; {t.kind.name} wants a multiple of "
                             f"{LAYOUTS[t.kind].weights}")  # fmt: skip


def _describe(writer: GGUFWriter, shape: Shape, kind: str, seed: int) -> None:
    writer.add_name(f"Random weights, seed {seed}")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads_kv)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _tokenizer(reader: GGUFReader, vocabulary: int) -> Iterator[tuple[str, Any, tuple[GGUFValueType, ...]]]:
    """Keys, values and their types of the starter's tokenizer, with `vocabulary` tokens."""
    found = {key: field for key, field in reader.fields.items() if key.startswith("tokenizer.")}
    values = {key: field.contents() for key, field in found.items()}
    tokens, merges = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
    known = values[tokens][:vocabulary]
    more = range(len(known), vocabulary)
    values[tokens] = known + [f"<|unused {i}|>" for i in more]
    values["tokenizer.ggml.token_type"] = (
        values["tokenizer.ggml.token_type"][:vocabulary] + [int(TokenType.UNUSED)] * len(more)
    )  # fmt: skip
    kept = set(known)
    values[merges] = [pair for pair in values[merges] if pair.replace(" ", "", 1) in kept]
    for key, field in found.items():
        yield key, values[key], tuple(field.types)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--type", choices=TYPES, default="q4_0")
    parser.add_argument("--seed", type=int, default=1)
    for field in fields(Shape):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, help="instead of the shape's")
    given = parser.parse_args()
    own = {f.name: getattr(given, f.name) for f in fields(Shape) if getattr(given, f.name) is not None}
    begun = time.perf_counter()
    try:
        write(given.out, replace(SHAPES[given.shape], **own), given.type, seed=given.seed)
    except (ValueError, OSError) as error:
        raise SystemExit(f"{given.out}: {error}") from None
    print(f"{given.out}: {given.out.stat().st_size:,} bytes in {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
