"""How long a text a model may embed, and what that takes."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from schemas.gguf import Header, Tensor
from workers.llama.fitting.sizes import sizes
from workers.llama.fitting.texts import CELLS_MIN, TOKENS_MAX, Texts, batch_of, texts, whole

MB = 1_000_000
SMALL = {"context_length": 8192, "block_count": 30, "embedding_length": 576, "attention.head_count": 9,
         "attention.head_count_kv": 3, "feed_forward_length": 1536}  # fmt: skip
SEVEN = {"context_length": 8192, "block_count": 32, "embedding_length": 4096, "attention.head_count": 32,
         "attention.head_count_kv": 8, "feed_forward_length": 11_008}  # fmt: skip


def header(shape: dict[str, Any], vocabulary: int = 49_152, architecture: str = "llama", **more: Any) -> Header:
    meta = {f"{architecture}.{name}": value for name, value in {**shape, **more}.items()}
    return Header(3, {"general.architecture": architecture, **meta}, lengths={"tokenizer.ggml.tokens": vocabulary})


def granted(of: Header, window: int = 8192, **more: Any) -> Texts:
    return texts(of, sizes(of, ()), window=window, **more)


def test_a_small_model_embeds_long_texts_and_its_plan_stays_modest() -> None:
    found = granted(header(SMALL))
    assert found.tokens == TOKENS_MAX
    assert found.bytes < 140 * MB


def test_the_operators_window_is_granted_whole_and_its_remedy_is_named_before() -> None:
    assert granted(header(SMALL)).remedy == "set models[].context: 8192"
    found = granted(header(SMALL), named=True)
    assert (found.tokens, found.remedy) == (8192, "")


def test_a_large_models_text_ends_where_its_keys_and_values_would_take_too_much() -> None:
    found = granted(header(SEVEN), named=True)
    assert found.tokens == 2048
    assert "made for embeddings" in found.remedy


@pytest.mark.parametrize("room", [300 * MB, 110 * MB, 75 * MB, 0])
def test_what_is_left_of_the_memory_bounds_a_text(room: int) -> None:
    most, found = granted(header(SMALL)), granted(header(SMALL), room=room)
    assert CELLS_MIN <= found.tokens <= most.tokens
    assert found.bytes <= room or found.tokens == CELLS_MIN
    if found.tokens < most.tokens:
        assert f"there are {found.bytes / 1e6:.0f} MB" in found.remedy
        assert "4096 tokens need" in found.remedy
        assert "worker.memory" in found.remedy


def test_a_larger_vocabulary_counts_twice_for_each_token_of_a_batch() -> None:
    small, large = granted(header(SMALL, 128_000), 512), granted(header(SMALL, 256_000), 512)
    assert batch_of(128_000) == batch_of(256_000) == 32
    assert large.bytes - small.bytes == pytest.approx(2 * 32 * 4 * 128_000, abs=2 * MB)


def test_an_encoders_text_counts_with_the_logits_of_all_its_tokens() -> None:
    bert = header({**SMALL, "context_length": 512}, 30_522, "bert", **{"attention.causal": False})
    found = granted(bert)
    assert whole(bert)
    assert found.tokens == 512
    assert found.bytes > 512 * 4 * 30_522
    gemma = header({**SMALL, "context_length": 2048}, 262_144, "gemma-embedding")
    assert whole(gemma)
    assert granted(gemma).tokens == 512
    assert granted(gemma).bytes > 512 * 4 * 262_144


def test_a_recurrent_state_counts_once_for_each_text_of_a_batch() -> None:
    state = {"ssm.inner_size": 1024, "ssm.state_size": 16, "ssm.conv_kernel": 4}
    plain = header(SMALL)
    mixed = replace(header(SMALL, **state), tensors=(Tensor("blk.0.ssm_in.weight", (576, 64), 0, 1_000),))
    recurrent = sizes(mixed, ()).recurrent
    assert recurrent > 0
    same = granted(plain, 512).bytes - 512 * sizes(plain, ()).cell_bytes("f16")
    assert granted(mixed, 512).bytes - 512 * sizes(mixed, ()).cell_bytes("f16") == pytest.approx(
        same + 4 * recurrent, abs=MB / 5
    )
