"""Whatever the bytes are: a header, or a sentence that says what is wrong."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.gguf import BLOCKS, Header, Malformed, read


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str = "t", shape: tuple[int, ...] = (32, 2), kind: int = 2, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


ARCHITECTURE = pair("general.architecture", 8, text("llama"))
CONTEXT = pair("llama.context_length", 4, struct.pack("<I", 4096))
WORDS = pair("words", 9, struct.pack("<IQ", 8, 2) + text("a") + text("bc"))


def file(
    *pairs: bytes,
    tensors: tuple[bytes, ...] = (),
    data: int = 0,
    version: int = 3,
    keys: int | None = None,
    count: int | None = None,
) -> bytes:
    head = b"GGUF" + struct.pack(
        "<IQQ", version, len(tensors) if count is None else count, len(pairs) if keys is None else keys
    )
    body = head + b"".join(pairs) + b"".join(tensors)
    return body + bytes(-len(body) % 32) + bytes(data)


GOOD = file(ARCHITECTURE, CONTEXT, WORDS, tensors=(tensor(), tensor("u", (32,), 0, 64)), data=64 + 128)


def test_a_good_file_tells_what_it_holds() -> None:
    header = read(GOOD, len(GOOD))
    assert header.number("context_length") == 4096
    assert (len(header.tensors), header.weight_bytes) == (2, 2 * 20 // 20 * 18 + 128)
    assert header.meta["words"] is None


def test_block_sizes_are_ggmls() -> None:
    assert dict(BLOCKS) == {int(k): v for k, v in GGML_QUANT_SIZES.items() if int(k) in BLOCKS}


def test_a_file_cut_short_anywhere_is_malformed() -> None:
    for size in range(len(GOOD)):
        with pytest.raises(Malformed):
            read(GOOD[:size], size)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"GGML" + bytes(100),
        b"<!DOCTYPE html><html>not found</html>",
        file(ARCHITECTURE, version=1),
        file(ARCHITECTURE, version=0x03000000),
        file(ARCHITECTURE, keys=2**60),
        file(ARCHITECTURE, keys=5_000),
        file(ARCHITECTURE, count=2**63),
        file(CONTEXT),
        file(ARCHITECTURE, pair("k", 8, struct.pack("<Q", 2**62))),
        file(ARCHITECTURE, pair("k", 9, struct.pack("<IQ", 8, 2**40))),
        file(ARCHITECTURE, pair("k", 9, struct.pack("<IQ", 6, 2**23))),
        file(ARCHITECTURE, pair("k", 9, struct.pack("<IQIQIQ", 9, 1, 9, 1, 9, 1))),
        file(ARCHITECTURE, pair("k", 77, b"")),
        file(ARCHITECTURE, pair("general.alignment", 4, struct.pack("<I", 0))),
        file(ARCHITECTURE, pair("general.alignment", 4, struct.pack("<I", 24))),
        file(ARCHITECTURE, pair("llama.block_count", 4, struct.pack("<I", 0))),
        file(ARCHITECTURE, pair("llama.block_count", 4, struct.pack("<I", 2**31))),
        file(ARCHITECTURE, pair("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", -1.0))),
        file(ARCHITECTURE, pair("llama.rope.freq_base", 6, struct.pack("<f", float("nan")))),
        file(ARCHITECTURE, tensors=(tensor(shape=(2**40, 2**40)),)),
        file(ARCHITECTURE, tensors=(tensor(shape=(0,)),)),
        file(ARCHITECTURE, tensors=(tensor(shape=()),)),
        file(ARCHITECTURE, tensors=(tensor(shape=(31,)),), data=100),
        file(ARCHITECTURE, tensors=(tensor(offset=7),), data=100),
        file(ARCHITECTURE, tensors=(tensor(offset=2**63),), data=100),
        file(ARCHITECTURE, tensors=(tensor(),), data=35),
    ],
)
def test_bad_files_are_malformed(bad: bytes) -> None:
    with pytest.raises(Malformed):
        read(bad, len(bad))


@settings(max_examples=300)
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_never_anything_but_malformed(data: bytes, with_magic: bool) -> None:
    data = b"GGUF\x03\x00\x00\x00" + data if with_magic else data
    with pytest.raises(Malformed):
        read(data, len(data))


@settings(max_examples=500)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_a_header_or_malformed(at: int, damage: bytes) -> None:
    data = GOOD[:at] + damage + GOOD[at + len(damage) :]
    try:
        found = read(data, len(data))
    except Malformed:
        return
    assert isinstance(found, Header)


def test_the_starter_model_is_whole_and_no_part_of_it_is(starter_model: Path) -> None:
    from workers.llama.fitting.file import model_file

    data = model_file(starter_model).read_bytes()
    header = read(data, len(data))
    assert header.text("general.architecture") == "llama"
    assert header.number("context_length") == 8192
    pick = random.Random(7)
    for size in [len(data) - 1, *(pick.randrange(len(data)) for _ in range(40))]:
        with pytest.raises(Malformed):
            read(data[:size], size)


def test_short_lists_of_whole_numbers_are_kept_and_others_are_only_counted() -> None:
    numbers = pair("llama.attention.head_count_kv", 9, struct.pack("<IQ3I", 4, 3, 8, 0, 4))
    reals = pair("r", 9, struct.pack("<IQ2f", 6, 2, 1.0, 2.0))
    long = pair("n", 9, struct.pack("<IQ", 5, 2_000) + bytes(8_000))
    data = file(ARCHITECTURE, WORDS, numbers, reals, long)
    header = read(data, len(data))
    assert header.each("attention.head_count_kv", 4) == (8, 0, 4, 8)
    assert header.number("attention.head_count_kv") == 8
    assert (header.meta["r"], header.meta["n"], header.meta["words"]) == (None, None, None)
    assert header.lengths == {"llama.attention.head_count_kv": 3, "r": 2, "n": 2_000, "words": 2}


def test_a_list_is_held_to_the_bounds_of_its_numbers() -> None:
    data = file(ARCHITECTURE, pair("llama.attention.head_count_kv", 9, struct.pack("<IQ2I", 4, 2, 8, 1 << 20)))
    with pytest.raises(Malformed, match="head_count_kv"):
        read(data, len(data))


def test_tensors_are_told_with_shape_type_and_size() -> None:
    header = read(GOOD, len(GOOD))
    assert [(t.name, t.shape, t.kind, t.bytes) for t in header.tensors] == [("t", (32, 2), 2, 36), ("u", (32,), 0, 128)]
