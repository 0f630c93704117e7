"""GGUF files of any shape, their weights a hole in the file; run as a program, llama.cpp's own figures for them.

    python -m tests.workers.llama.shapes < cases.json

Each case is `{"path", "batch", "cells", "sequences", "kv_type", "flash", "repack"}`; each line of the answer has the
bytes of llama.cpp's buffers by their kind, as it logs them.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

MIB = 1024 * 1024


def write(
    path: Path,
    *,
    architecture: str = "llama",
    layers: int = 2,
    width: int = 1024,
    heads: int = 16,
    kv: int | Sequence[int] = 4,
    forward: int = 4096,
    vocabulary: int = 4_000,
    kind: Type = Type.Q4_K,
    experts: int = 0,
    used: int = 0,
    tied: bool = False,
    window: int = 131_072,
) -> Path:
    """A llama (or `deci`, which may have other heads in each layer) of this shape."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(window)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(list(kv) if isinstance(kv, Sequence) else kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(used)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{i}" for i in range(vocabulary)])
    writer.add_token_types([1] * vocabulary)
    writer.add_token_merges(["t1 t2"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    size = 0
    for name, shape, stored in _tensors(layers, width, heads, kv, forward, vocabulary, kind, experts, tied):
        block, block_bytes = gguf.GGML_QUANT_SIZES[stored]
        count = int(np.prod(shape)) // block * block_bytes
        writer.add_tensor_info(name, list(shape), np.dtype(np.float32), count, raw_dtype=stored)
        size += -(-count // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, -(-path.stat().st_size // 32) * 32 + size)
    return path


def _tensors(
    layers: int, width: int, heads: int, kv: Any, forward: int, vocabulary: int, kind: Type, experts: int, tied: bool
) -> list[tuple[str, tuple[int, ...], Type]]:
    found = [("token_embd.weight", (vocabulary, width), kind)]
    for i in range(layers):
        keys = width // heads * (kv[i] if isinstance(kv, Sequence) else kv)
        rows = {"attn_q": (width, width), "attn_k": (keys, width), "attn_v": (keys, width)}
        rows["attn_output"] = (width, width)
        if experts:
            rows |= {"ffn_gate_exps": (experts, forward, width), "ffn_up_exps": (experts, forward, width)}
            rows["ffn_down_exps"] = (experts, width, forward)
        else:
            rows |= {"ffn_gate": (forward, width), "ffn_up": (forward, width), "ffn_down": (width, forward)}
        plain = {"attn_norm": (width,), "ffn_norm": (width,)}
        if experts:
            plain["ffn_gate_inp"] = (experts, width)
        found += [(f"blk.{i}.{name}.weight", shape, kind) for name, shape in rows.items()]
        found += [(f"blk.{i}.{name}.weight", shape, Type.F32) for name, shape in plain.items()]
    found.append(("output_norm.weight", (width,), Type.F32))
    return found if tied else [*found, ("output.weight", (vocabulary, width), kind)]


def figures(case: dict[str, Any]) -> dict[str, int]:
    """Bytes of the buffers that llama.cpp makes for the case."""
    import llama_cpp.llama_cpp as c

    said: list[str] = []
    told = c.llama_log_callback(lambda _level, text, _data: said.append((text or b"").decode("utf-8", "replace")))
    c.llama_log_set(told, ctypes.c_void_p(0))
    model_params = c.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model_params.use_extra_bufts = case.get("repack", True)
    model = c.llama_model_load_from_file(os.fsencode(case["path"]), model_params)
    assert model, "".join(said)
    params = c.llama_context_default_params()
    params.n_ctx = case.get("cells", 8192)
    params.n_batch = params.n_ubatch = case.get("batch", 512)
    params.n_seq_max = params.n_outputs_max = case.get("sequences", 34)
    params.type_k = params.type_v = {"f16": 1, "f32": 0, "q8_0": 8}[case.get("kv_type", "f16")]
    params.flash_attn_type = int(case.get("flash", True))
    params.kv_unified = params.swa_full = True
    context = c.llama_init_from_model(model, params)
    assert context, "".join(said)
    found = re.findall(r"(\S+)\s+(model|KV|compute|output|RS) buffer size =\s+([\d.]+) MiB", "".join(said))
    c.llama_free(context)
    c.llama_model_free(model)
    c.llama_log_set(c.llama_log_callback(lambda *_: None), ctypes.c_void_p(0))
    sums: dict[str, int] = {}
    for buffer, kind, size in found:
        name = buffer if kind == "model" else kind
        sums[name] = sums.get(name, 0) + int(float(size) * MIB)
    return sums


if __name__ == "__main__":
    for line in [figures(case) for case in json.load(sys.stdin)]:
        print(json.dumps(line))
