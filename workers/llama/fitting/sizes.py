"""How many bytes a model takes in memory, from its header alone: weights, cells, compute buffers. Pure.

The rules are llama.cpp's own (0.3.36): which weights it repacks, which layers have keys and values, how large its
buffers become. What is not known of a new architecture is counted as if it were there. What always holds: a figure is
at least as large as what llama.cpp then takes, within the 15 % or 32 MB that the tests allow.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from msgspec import Struct

from schemas.gguf import Header, Tensor

KV_BYTES: Final[Mapping[str, float]] = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
F32_BYTES: Final = 4
MASK_BYTES: Final = 2
BLOCK: Final = 32
CELL_BOOKS: Final = 64
"""llama.cpp's own books of a cell: its position and the set of sequences that use it."""
BASE_BYTES: Final = 8_000_000
"""Libraries' tables, graphs and the threads' working memory."""
TEXT_BYTES: Final = 120
"""Of each token and each merge of the vocabulary, in llama.cpp's maps."""

_Q: Final = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "Q2_K": 10, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20,
             "IQ4_XS": 23, "MXFP4": 39, "Q1_0": 41, "F16": 1}  # fmt: skip
"""ggml's numbers of the types that the rules below name."""

_AVX2: Final = {"Q4_0": 8, "Q4_K": 8, "IQ4_NL": 8, "MXFP4": 8}
_NEON: Final = {"Q4_0": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8, "Q8_0": 4, "IQ4_NL": 4, "MXFP4": 4, "Q1_0": 4}
_RISCV: Final = {"Q4_0": 16, "Q4_K": 16, "Q2_K": 16, "IQ4_NL": 16, "Q8_0": 16}
_VXE: Final = {"Q4_0": 4}
_AMX: Final = {"Q4_0": 32, "Q4_1": 32, "Q8_0": 32, "Q4_K": 32, "Q5_K": 32, "Q6_K": 32, "IQ4_XS": 32, "F16": 32}


def repacked(instructions: Collection[str]) -> dict[int, int]:
    """ggml types that llama.cpp keeps in another order in memory of its own, and by how many rows it takes them.

    Follows `ggml_repack_get_optimal_repack_type` and the AMX buffer; `instructions` as in `build.INSTRUCTIONS`.
    """
    rules: list[Mapping[str, int]] = []
    if "amx_int8" in instructions and "avx512_vnni" in instructions:
        rules.append(_AMX)
    if "avx2" in instructions:
        rules.append({**_AVX2, **({"Q2_K": 8} if "avx512" in instructions else {})})
    if "neon" in instructions and ("dotprod" in instructions or "matmul_int8" in instructions):
        rules.append(_NEON)
    if "riscv_v" in instructions:
        rules.append(_RISCV)
    if "vxe" in instructions:
        rules.append(_VXE)
    return {_Q[name]: min(r[name] for r in rules if name in r) for name in {n for rule in rules for n in rule}}


class Layer(Struct, frozen=True):
    """Bytes of one layer: its weights, one cell's keys and values by type, and a sequence's recurrent state."""

    weights: int
    copied: int
    """Of the weights, those that are repacked into memory of their own."""
    cell_items: int
    recurrent: int


class Sizes(Struct, frozen=True, kw_only=True):
    """What the header says about memory."""

    layers: tuple[Layer, ...]
    other: int
    """Weights outside the layers: embeddings, output, norms."""
    other_copied: int
    output: int
    """Weights behind the last layer, which go to a graphics card with it."""
    doubled: int
    """Bytes of the embedding that are kept a second time, repacked, because it serves as the output as well."""
    vocabulary: int
    books: int
    """Bytes of tokeniser and tables."""
    width: int
    """Numbers that a token takes in the widest place of the graph, with flash attention."""
    heads: int
    quantises: bool
    """Whether keys and values can be stored as blocks of 32."""

    def cell_bytes(self, kv_type: str) -> int:
        """Memory of one token's keys and values over all layers."""
        return int(sum(layer.cell_items for layer in self.layers) * KV_BYTES[kv_type])

    @property
    def recurrent(self) -> int:
        """Bytes of one sequence's recurrent state over all layers."""
        return sum(layer.recurrent for layer in self.layers)

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers) + self.other

    @property
    def copied(self) -> int:
        """Of `weights`, what is repacked."""
        return sum(layer.copied for layer in self.layers) + self.other_copied

    def compute_bytes(self, *, batch: int, cells: int, sequences: int, flash: bool, wants: int = 0) -> int:
        """Buffers of one step: the widest place of the graph, or the logits, whichever is larger, and their copy.

        `wants`: tokens of a batch behind which may be sampled; `sequences` where it is 0.
        """
        tokens = -(-batch // sequences) * sequences if batch > sequences else sequences
        wants = wants or sequences
        if flash:
            graph = tokens * (self.width * F32_BYTES + cells * MASK_BYTES)
        else:
            attention = self.heads * cells + cells
            graph = tokens * F32_BYTES * max(self.width + cells, self.width // 2 + attention)
        rows = min(wants, tokens)
        logits = rows * self.vocabulary * F32_BYTES + tokens * (self.width // 8) * F32_BYTES
        return max(graph, logits) + wants * self.vocabulary * F32_BYTES


def sizes(header: Header, instructions: Collection[str], *, repack: bool = True) -> Sizes:
    """Read the sizes off the header. `repack`: whether llama.cpp will be told to."""
    kinds = repacked(instructions) if repack else {}
    count = max(header.number("block_count"), 0)
    by_layer: dict[int, list[Tensor]] = {}
    other = []
    for tensor in header.tensors:
        match = re.match(r"blk\.(\d+)\.", tensor.name)
        if match and int(match[1]) < max(count, 1):
            by_layer.setdefault(int(match[1]), []).append(tensor)
        else:
            other.append(tensor)
    embedding = next((t for t in other if t.name == "token_embd.weight"), None)
    tied = embedding is not None and not any(t.name == "output.weight" for t in other)
    output = [t for t in other if t.name.startswith("output")]
    return Sizes(
        layers=tuple(_layers(header, by_layer, count, kinds)),
        other=sum(t.bytes for t in other),
        other_copied=sum(t.bytes for t in output if _copied(t, kinds)),
        output=sum(t.bytes for t in output) or (embedding.bytes if embedding else 0),
        doubled=embedding.bytes if embedding and tied and _copied(embedding, kinds) else 0,
        vocabulary=embedding.shape[1] if embedding and len(embedding.shape) > 1 else _tokens(header),
        books=BASE_BYTES + TEXT_BYTES * (_tokens(header) + header.lengths.get("tokenizer.ggml.merges", 0)),
        width=_width(header),
        heads=max(header.number("attention.head_count"), 1),
        quantises=all(length % BLOCK == 0 for length in _head_lengths(header)),
    )


def _tokens(header: Header) -> int:
    return header.lengths.get("tokenizer.ggml.tokens", 0)


def _copied(tensor: Tensor, kinds: Mapping[int, int]) -> bool:
    rows = kinds.get(tensor.kind)
    return rows is not None and len(tensor.shape) in (2, 3) and tensor.shape[1] % rows == 0


def _layers(header: Header, tensors: Mapping[int, list[Tensor]], count: int, kinds: Mapping[int, int]) -> list[Layer]:
    heads = header.each("attention.head_count", count)
    kv_heads = header.each("attention.head_count_kv", count)
    if header.own("attention.head_count_kv") is None:
        kv_heads = heads
    keys, values = _head_lengths(header)
    if header.number("attention.key_length_mla"):
        values = 0  # they are part of the compressed keys
    causal = header.own("attention.causal") is not False
    shared = header.number("attention.shared_kv_layers")
    recurrent = _recurrent(header)
    layers = []
    for n in range(count):
        own = tensors.get(n, [])
        names = {t.name.split(".")[2] for t in own}
        state = any(name.startswith(("ssm_", "shortconv", "time_mix")) for name in names)
        attends = "attn_k" in names or "attn_kv_a_mqa" in names or not state
        layers.append(
            Layer(
                weights=sum(t.bytes for t in own),
                copied=sum(t.bytes for t in own if _copied(t, kinds)),
                cell_items=kv_heads[n] * (keys + values) if causal and attends and n < count - shared else 0,
                recurrent=recurrent if state else 0,
            )
        )
    return layers


def _head_lengths(header: Header) -> tuple[int, int]:
    """Numbers in one head's key and value; where layers with a sliding window differ, the larger."""
    heads = header.number("attention.head_count")
    width = header.number("embedding_length") // heads if heads else 0
    keys = max(header.number("attention.key_length"), header.number("attention.key_length_swa")) or width
    values = max(header.number("attention.value_length"), header.number("attention.value_length_swa")) or width
    return keys, values


def _recurrent(header: Header) -> int:
    """Bytes of one recurrent layer's state of one sequence, by the largest of the forms that llama.cpp knows."""
    width = header.number("embedding_length")
    inner, state = header.number("ssm.inner_size"), header.number("ssm.state_size")
    conv, groups = header.number("ssm.conv_kernel"), header.number("ssm.group_count")
    mamba = max(conv - 1, 0) * (inner + 2 * groups * state) + state * inner
    rwkv = width * (2 + header.number("wkv.head_size")) if header.number("wkv.head_size") else 0
    short = width * max(header.number("shortconv.l_cache") - 1, 0)
    return F32_BYTES * max(mamba, rwkv, short)


def _width(header: Header) -> int:
    """Numbers a token takes where the graph is widest: feed-forward, experts, or queries, keys and values.

    Measured over some forty shapes with llama.cpp's own figures: three feed-forward rows and four embeddings; of
    experts all that are used, or two embeddings for each.
    """
    embedding = header.number("embedding_length")
    shapes: dict[str, int] = {}
    for tensor in header.tensors:
        if len(tensor.shape) > 1 and tensor.name.startswith("blk."):
            name = tensor.name.split(".")[2]
            shapes[name] = max(shapes.get(name, 0), tensor.shape[1])
    dense = max(shapes.get("ffn_up", 0), shapes.get("ffn_gate", 0), header.number("feed_forward_length"))
    gated = "ffn_gate" in shapes or not shapes
    forward = (3 if gated else 2) * dense + 4 * embedding
    used = header.number("expert_used_count")
    fused = shapes.get("ffn_gate_up_exps", 0) // 2
    expert = max(shapes.get("ffn_up_exps", 0), shapes.get("ffn_gate_exps", 0), fused)
    experts = max(3 * used * expert + 4 * embedding, 2 * used * embedding + 5 * embedding) if expert else 0
    heads = header.number("attention.head_count")
    head = header.number("attention.key_length") or (embedding // heads if heads else 0)
    queries = max(shapes.get("attn_q", 0), heads * head)
    keys = max(shapes.get("attn_k", 0), header.number("attention.head_count_kv") * head)
    attention = 2 * embedding + 3 * queries + keys
    return max(forward if dense else 0, experts, attention, 5 * embedding)
