"""What a GGUF file says about itself, checked before llama.cpp sees it. Pure: bytes in, a `Header` out.

llama.cpp trusts sizes and counts in the file and may end the process over a bad one, so every length here has a
bound and lies within the file. It does not look at the weights. The format: docs/gguf.md of ggml-org/ggml.
What always holds: whatever the bytes are, the result is a `Header` or `Malformed`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

Buffer = bytes | bytearray | memoryview
Value = int | float | bool | str | tuple[int, ...] | None
"""None stands for an array of which only the bounds are checked: texts, real numbers, and what is too long."""

VERSIONS: Final = (2, 3)
KEYS_MAX: Final = 4_096
TENSORS_MAX: Final = 65_536
NAME_BYTES_MAX: Final = 1_024
TEXT_BYTES_MAX: Final = 16_777_216
"""A string value; chat templates have 20 kB, embedded tokeniser tables some megabytes."""
ITEMS_MAX: Final = 16_777_216
"""Items of an array; the largest vocabularies have 300,000 tokens."""
DIMENSIONS_MAX: Final = 4
ELEMENTS_MAX: Final = 1 << 48
KEPT_MAX: Final = 1_024
"""Items of an array of whole numbers that is kept: one for each layer."""
SPLITS_MAX: Final = 1_000
DEPTH_MAX: Final = 2
"""Arrays of arrays are allowed by the format and used by nobody."""

BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "block_count": (1, 512),
    "context_length": (1, 1 << 31),
    "embedding_length": (1, 1 << 20),
    "feed_forward_length": (1, 1 << 24),
    "attention.head_count": (0, 1 << 16),
    "attention.head_count_kv": (0, 1 << 16),
}
"""What llama.cpp takes for granted of an architecture's numbers, and ends the process over when it is not so."""

_SCALARS: Final[Mapping[int, str]] = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_WHOLE: Final = "BbHhIi?Qq"
_STRING: Final = 8
_ARRAY: Final = 9

BLOCKS: Final[Mapping[int, tuple[int, int]]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""Elements and bytes of a block by ggml type. A type that is not here is newer: its size is not checked."""


class Malformed(Exception):
    """Not a GGUF file, or not a whole one; the sentence says what is wrong where."""


class Tensor(Struct, frozen=True):
    """One tensor: `shape` with the row's length first, `kind` as ggml numbers its types; 0 bytes for an unknown one."""

    name: str
    shape: tuple[int, ...]
    kind: int
    bytes: int


class Header(Struct, frozen=True):
    """`meta` holds scalars, texts and short arrays of whole numbers; `lengths` the items of every array."""

    version: int
    meta: dict[str, Value]
    tensors: tuple[Tensor, ...] = ()
    lengths: dict[str, int] = {}

    @property
    def weight_bytes(self) -> int:
        """The size of all tensors of known type."""
        return sum(t.bytes for t in self.tensors)

    def text(self, key: str) -> str:
        value = self.meta.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        """An integer of the model's architecture (`context_length`), the largest of a list, 0 when absent."""
        value = self.own(key)
        return max(value, default=0) if isinstance(value, tuple) else value if isinstance(value, int) else 0

    def each(self, key: str, layers: int) -> tuple[int, ...]:
        """An integer of the architecture for every layer, whether the file says one for all or one for each."""
        value = self.own(key)
        if isinstance(value, tuple):
            return (*value, *([max(value, default=0)] * layers))[:layers]
        return (value if isinstance(value, int) else 0,) * layers

    def own(self, key: str) -> Value:
        """A value of the model's architecture as it is."""
        return self.meta.get(f"{self.text('general.architecture')}.{key}")


class _Reader:
    def __init__(self, data: Buffer) -> None:
        self.data = memoryview(data)
        self.at = 0

    def take(self, size: int, what: str) -> int:
        """Advance over `size` bytes and return where they begin."""
        begin = self.at
        if size < 0 or size > len(self.data) - begin:
            raise Malformed(f"the file ends within {what}, at byte {begin}")
        self.at = begin + size
        return begin

    def unpack(self, form: str, what: str) -> int:
        code = "<" + form
        value: int = struct.unpack_from(code, self.data, self.take(struct.calcsize(code), what))[0]
        return value

    def count(self, limit: int, what: str) -> int:
        value = self.unpack("Q", what)
        if value > limit:
            raise Malformed(f"{what} {value}, {limit} at most")
        return value

    def string(self, limit: int, what: str) -> str:
        size = self.count(limit, f"length of {what}")
        begin = self.take(size, what)
        return bytes(self.data[begin : begin + size]).decode("utf-8", "replace")

    def skip_strings(self, count: int, what: str) -> None:
        """The loop over a vocabulary: 100,000 strings in tens of milliseconds."""
        data, at, end = self.data, self.at, len(self.data)
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if at + 8 > end:
                raise Malformed(f"the file ends within {what}, at byte {at}")
            size = unpack(data, at)[0]
            if size > TEXT_BYTES_MAX or size > end - at - 8:
                raise Malformed(f"a text of {what} is longer than the file, at byte {at}")
            at += 8 + size
        self.at = at


def read(data: Buffer, file_bytes: int) -> Header:
    """Parse and check the header at the beginning of `data`; `file_bytes` is the size of the whole file.

    `data` may be a memory map of the file. Raises `Malformed`.
    """
    r = _Reader(data)
    magic = bytes(r.data[:4])
    if magic != b"GGUF":
        raise Malformed(f"it begins with {magic!r}, not with b'GGUF'" if magic else "the file is empty")
    r.at = 4
    version = r.unpack("I", "the version")
    if version not in VERSIONS:
        raise Malformed(f"version {version}; versions {VERSIONS[0]} and {VERSIONS[-1]} are known")
    tensors = r.count(TENSORS_MAX, "number of tensors")
    keys = r.count(KEYS_MAX, "number of keys")
    meta: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    for _ in range(keys):
        key = r.string(NAME_BYTES_MAX, "a key")
        meta[key] = _value(r, r.unpack("I", f"the type of {key}"), key, 0, lengths)
    if not isinstance(meta.get("general.architecture"), str) and not meta.get("split.no"):
        raise Malformed("general.architecture is missing")
    _check_numbers(meta)
    placed = [_tensor(r) for _ in range(tensors)]
    _fit(r.at, placed, meta, file_bytes)
    return Header(version, meta, tuple(tensor for tensor, _ in placed), lengths)


def joined(parts: Sequence[Header]) -> Header:
    """One header of a model in several files, in their order; raises `Malformed` when they do not belong together."""
    first = parts[0]
    for at, part in enumerate(parts):
        said = (part.meta.get("split.no", 0), part.meta.get("split.count", 1))
        if said != (at, len(parts)):
            raise Malformed(f"file {at + 1} of {len(parts)} calls itself number {said[0]} (from 0) of {said[1]}")
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    count = first.meta.get("split.tensors.count", len(tensors))
    if count != len(tensors):
        raise Malformed(f"its parts hold {len(tensors)} tensors, and should hold {count}")
    return Header(first.version, first.meta, tensors, first.lengths)


def _value(r: _Reader, kind: int, key: str, depth: int, lengths: dict[str, int]) -> Value:
    if kind in _SCALARS:
        return r.unpack(_SCALARS[kind], key)
    if kind == _STRING:
        return r.string(TEXT_BYTES_MAX, key)
    if kind != _ARRAY or depth >= DEPTH_MAX:
        raise Malformed(f"{key} has the unknown type {kind}")
    item = r.unpack("I", key)
    count = r.count(ITEMS_MAX, f"number of items of {key}")
    if depth == 0:
        lengths[key] = count
    if item in _SCALARS:
        form = _SCALARS[item]
        begin = r.take(count * struct.calcsize("<" + form), key)
        if form in _WHOLE and count <= KEPT_MAX:
            return tuple(int(n) for n in struct.unpack_from(f"<{count}{form}", r.data, begin))
    elif item == _STRING:
        r.skip_strings(count, key)
    else:
        for _ in range(count):
            _value(r, item, key, depth + 1, lengths)
    return None


def _check_numbers(meta: dict[str, Value]) -> None:
    """The architecture's numbers are plausible, and no real number is infinite, undefined or a negative tolerance."""
    for key, value in meta.items():
        low, high = BOUNDS.get(key.partition(".")[2], (None, None))
        if low is not None and high is not None:
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int) and not low <= number <= high:
                    raise Malformed(f"{key} is {number}; it must be from {low} to {high}")
        if isinstance(value, float) and (not math.isfinite(value) or (value < 0 and key.endswith("epsilon"))):
            raise Malformed(f"{key} is {value}")


def _tensor(r: _Reader) -> tuple[Tensor, int]:
    """One tensor and its offset in the data section."""
    name = r.string(NAME_BYTES_MAX, "a tensor's name")
    dimensions = r.unpack("I", name)
    if not 1 <= dimensions <= DIMENSIONS_MAX:
        raise Malformed(f"tensor {name} has {dimensions} dimensions")
    elements = 1
    shape = []
    for _ in range(dimensions):
        size = r.unpack("Q", name)
        if not 1 <= size <= ELEMENTS_MAX:
            raise Malformed(f"tensor {name} has a dimension of {size}")
        shape.append(size)
        elements *= size
        if elements > ELEMENTS_MAX:
            raise Malformed(f"tensor {name} has {elements} elements")
    kind = r.unpack("I", name)
    block, block_bytes = BLOCKS.get(kind, (1, 0))
    if shape[0] % block:
        raise Malformed(f"tensor {name} has rows of {shape[0]}, not a multiple of {block}")
    return Tensor(name, tuple(shape), kind, elements // block * block_bytes), r.unpack("Q", name)


def _fit(header_bytes: int, placed: list[tuple[Tensor, int]], meta: dict[str, Value], file_bytes: int) -> None:
    """All tensors must lie within the file."""
    alignment = meta.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment > 65_536 or alignment & (alignment - 1):
        raise Malformed(f"general.alignment is {alignment}, not a power of two")
    start = -(-header_bytes // alignment) * alignment
    for tensor, offset in placed:
        end = start + offset + tensor.bytes
        if offset % alignment:
            raise Malformed(f"tensor {tensor.name} begins at {offset}, which is not aligned to {alignment}")
        if end > file_bytes:
            raise Malformed(f"the file has {file_bytes} bytes, but tensor {tensor.name} ends at {end}: it is not whole")
