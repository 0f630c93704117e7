"""Whatever the bytes are: a header whose tensors fill the file, or a sentence that says what is wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from schemas.safetensors import HEADER_BYTES_MAX, Malformed, Tensor, read


def file(header: object, data: int = 0, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(data)


def tensor(begin: int, end: int, dtype: str = "U8", shape: list[int] | None = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


TWICE = b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}'
GOOD = file({"__metadata__": {"licence": "none"}, "b": tensor(8, 12), "a": tensor(0, 8, "BF16", [2, 2])}, 12)


def test_a_good_file_tells_what_it_holds() -> None:
    header = read(GOOD, len(GOOD))
    assert header.tensors == {"a": Tensor("BF16", (2, 2), (0, 8)), "b": Tensor("U8", (4,), (8, 12))}
    assert header.metadata == {"licence": "none"}


def test_files_of_the_library_that_defines_the_format_are_good() -> None:
    tensors = {
        "half": np.ones((3, 5), np.float16), "scalar": np.array(1.5), "empty": np.zeros((0, 4), np.int8),
        "flags": np.array([True, False]), "wide": np.arange(7, dtype=np.uint64), "complex": np.ones(2, np.complex64),
    }  # fmt: skip
    raw = save(tensors, {"format": "np"})
    header = read(raw, len(raw))
    assert {name: found.shape for name, found in header.tensors.items()} == {
        name: array.shape for name, array in tensors.items()
    }
    assert header.metadata == {"format": "np"}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "has 0 bytes"),
        (b"\x01\x00\x00", "has 3 bytes"),
        (file({}, length=1_000), "would end at byte 1008"),
        (file({}, length=HEADER_BYTES_MAX + 1), "at most"),
        (file({}, length=2**64 - 1), "at most"),
        (file(b" {}"), "begins with b' '"),
        (file(b"[]"), "begins with b'['"),
        (file(b"{"), "not what the format wants"),
        (file(b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"), "recursion"),
        (file(b'{"\xff": 1}'), "a"),
        (file({"a": 1}), "tensor a"),
        (file({"a": {"dtype": "U8", "shape": [1]}}, 1), "data_offsets"),
        (file({"a": tensor(0, 1, "X9")}, 1), "unknown type 'X9'"),
        (file({"a": tensor(0, 4, "F32", [2])}, 4), "has 8 bytes, not 4"),
        (file({"a": tensor(0, 1, "F4", [1])}, 1), "has 0.5 bytes"),
        (file({"a": tensor(0, 1, "U8", [-1])}, 1), "shape"),
        (file({"a": tensor(0, 1, "U8", [2**70])}, 1), "tensor a"),
        (file({"a": tensor(0, 1, "U8", [2**62, 2**62])}, 1), "not 1"),
        (file({"a": tensor(0, 1, "U8", [1] * 33)}, 1), "length"),
        (file({"a": tensor(4, 2, "U8", [0])}, 4), "not -2"),
        (file({"a": tensor(0, 4), "b": tensor(2, 6)}, 6), "tensor b begins at 2, not at 4"),
        (file({"a": tensor(0, 4), "b": tensor(5, 6)}, 6), "tensor b begins at 5, not at 4"),
        (file({"a": tensor(1, 4)}, 4), "begins at 1, not at 0"),
        (file({"a": tensor(0, 4)}, 5), "end at 4 of 5"),
        (file({"a": tensor(0, 4)}, 3), "end at 4 of 3"),
        (file(TWICE, 8), "begins at 4, not at 0"),
        (file({"__metadata__": {"a": 1}}), "format wants"),
        (file({"__metadata__": 1}), "format wants"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named(raw: bytes, reason: str) -> None:
    with pytest.raises(Malformed) as told:
        read(raw, len(raw))
    assert reason in str(told.value)


def test_every_shorter_file_is_malformed() -> None:
    for size in range(len(GOOD)):
        with pytest.raises(Malformed):
            read(GOOD[:size], size)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_any_wrong_byte_is_malformed_or_harmless(at: int, value: int) -> None:
    raw = bytearray(GOOD)
    raw[at] = value
    try:
        header = read(raw, len(raw))
    except Malformed:
        return
    ends = sorted(tensor.data_offsets for tensor in header.tensors.values())
    assert ends[0][0] == 0
    assert ends[-1][1] == 12


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_malformed(raw: bytes) -> None:
    try:
        header = read(raw, len(raw))
    except Malformed:
        return
    if header.tensors:
        load(raw)


def test_only_the_header_is_looked_at(tmp_path: Path) -> None:
    assert read(GOOD[:-12], len(GOOD)).metadata == {"licence": "none"}
