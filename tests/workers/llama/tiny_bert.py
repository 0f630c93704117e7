"""A BERT of random weights as a GGUF file, and what it must compute, in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁boat", "▁sea", "▁red", "▁house", "▁sails", "▁on", "▁the", "s"]
CLS, SEP = 2, 3
WIDTH, HEADS, INNER, LAYERS, WINDOW = 64, 4, 128, 2, 96
EPSILON = 1e-6


class TinyBert:
    """`pooling`: as the file names it; None leaves it out."""

    def __init__(self, seed: int = 1) -> None:
        random = np.random.default_rng(seed)

        def some(*shape: int) -> Any:
            return (random.standard_normal(shape) * 0.3).astype(np.float32)

        self.weights = {
            "token_embd.weight": some(len(WORDS), WIDTH),
            "token_types.weight": some(2, WIDTH),
            "position_embd.weight": some(WINDOW, WIDTH),
            **_norm("token_embd_norm", some),
        }
        for i in range(LAYERS):
            for name, rows, columns in [
                ("attn_q", WIDTH, WIDTH),
                ("attn_k", WIDTH, WIDTH),
                ("attn_v", WIDTH, WIDTH),
                ("attn_output", WIDTH, WIDTH),
                ("ffn_up", INNER, WIDTH),
                ("ffn_down", WIDTH, INNER),
            ]:
                self.weights[f"blk.{i}.{name}.weight"] = some(rows, columns)
                self.weights[f"blk.{i}.{name}.bias"] = some(rows)
            self.weights |= _norm(f"blk.{i}.attn_output_norm", some) | _norm(f"blk.{i}.layer_output_norm", some)

    def write(self, path: Path, pooling: int | None = None) -> Path:
        writer = gguf.GGUFWriter(path, "bert")
        writer.add_context_length(WINDOW)
        writer.add_embedding_length(WIDTH)
        writer.add_feed_forward_length(INNER)
        writer.add_block_count(LAYERS)
        writer.add_head_count(HEADS)
        writer.add_layer_norm_eps(EPSILON)
        writer.add_causal_attention(False)
        if pooling is not None:
            writer.add_uint32("bert.pooling_type", pooling)
        writer.add_tokenizer_model("bert")
        writer.add_token_list(WORDS)
        writer.add_token_types([3, 2, 3, 3, *[1] * (len(WORDS) - 4)])
        writer.add_token_type_count(2)
        writer.add_bos_token_id(CLS)
        writer.add_sep_token_id(SEP)
        writer.add_unk_token_id(1)
        writer.add_pad_token_id(0)
        for name, values in self.weights.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def embeddings(self, tokens: list[int]) -> Any:
        """Of each token, as Devlin et al. 2018 has it."""
        w = self.weights
        x = w["token_embd.weight"][tokens] + w["token_types.weight"][0] + w["position_embd.weight"][: len(tokens)]
        x = self._normed(x, "token_embd_norm")
        for i in range(LAYERS):
            q, k, v = (self._heads(self._linear(x, f"blk.{i}.attn_{n}")) for n in "qkv")
            scores = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS))
            seen = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(tokens), WIDTH)
            x = self._normed(x + self._linear(seen, f"blk.{i}.attn_output"), f"blk.{i}.attn_output_norm")
            up = self._linear(x, f"blk.{i}.ffn_up")
            up *= 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
            x = self._normed(x + self._linear(up, f"blk.{i}.ffn_down"), f"blk.{i}.layer_output_norm")
        return x

    def _linear(self, x: Any, name: str) -> Any:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _heads(self, x: Any) -> Any:
        return x.reshape(len(x), HEADS, WIDTH // HEADS).transpose(1, 0, 2)

    def _normed(self, x: Any, name: str) -> Any:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def _norm(name: str, some: Any) -> dict[str, Any]:
    return {f"{name}.weight": 1 + some(WIDTH), f"{name}.bias": some(WIDTH)}
