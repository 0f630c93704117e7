"""What a safetensors file says about itself, checked before anybody maps its weights. Pure: bytes in, a `Header` out.

It does not look at the weights. The format: README.md of huggingface/safetensors. What always holds: whatever the bytes
are, the result is a `Header` whose tensors fill the file without a hole and without an overlap, or `Malformed`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

Buffer = bytes | bytearray | memoryview

LENGTH_BYTES: Final = 8
HEADER_BYTES_MAX: Final = 100_000_000
DIMENSIONS_MAX: Final = 32
TENSORS_MAX: Final = 1_000_000
METADATA: Final = "__metadata__"

BITS: Final[Mapping[str, int]] = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of an element. A type that is not here is refused, because its size could not be checked."""

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Malformed(Exception):
    """Not a safetensors file, or not a whole one; the sentence says what is wrong where."""


class Tensor(Struct, frozen=True):
    """One tensor: its bytes are those from `data_offsets[0]` up to `data_offsets[1]` after the header."""

    dtype: str
    shape: Annotated[tuple[Count, ...], Meta(max_length=DIMENSIONS_MAX)]
    data_offsets: tuple[Count, Count]


class Header(Struct, frozen=True):
    """Tensors by name, and the texts that the publisher added."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read(data: Buffer, file_bytes: int) -> Header:
    """Parse and check the header at the beginning of `data`; `file_bytes` is the size of the whole file.

    `data` may be a memory map of the file. Raises `Malformed`.
    """
    view = memoryview(data)
    if len(view) < LENGTH_BYTES:
        raise Malformed(f"it has {len(view)} bytes; the length of the header alone has {LENGTH_BYTES}")
    size: int = struct.unpack_from("<Q", view)[0]
    if size > HEADER_BYTES_MAX:
        raise Malformed(f"its header would have {size} bytes; {HEADER_BYTES_MAX} at most")
    start = LENGTH_BYTES + size
    if start > min(len(view), file_bytes):
        raise Malformed(f"its header would end at byte {start}, and the file has {file_bytes}")
    raw = bytes(view[LENGTH_BYTES:start])
    if not raw.startswith(b"{"):
        raise Malformed(f"its header begins with {raw[:1]!r}, not with b'{{'")
    header = _parsed(raw)
    _tile(header.tensors, file_bytes - start)
    return header


def _parsed(raw: bytes) -> Header:
    try:
        entries = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        if len(entries) > TENSORS_MAX:
            raise Malformed(f"it has {len(entries)} tensors; {TENSORS_MAX} at most")
        metadata = msgspec.json.decode(entries.pop(METADATA, b"{}"), type=dict[str, str])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"its header is not what the format wants: {error}") from None
    decoder = msgspec.json.Decoder(Tensor)
    tensors = {}
    for name, entry in entries.items():
        try:
            tensors[name] = decoder.decode(entry)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed(f"tensor {name}: {error}") from None
    return Header(tensors, metadata)


def _tile(tensors: Mapping[str, Tensor], data_bytes: int) -> None:
    """Each tensor is as long as its shape wants, begins where the one before ends, and the last ends with the file.

    So a name that is written twice, of which readers may take the first or the last, leaves a hole and is refused.
    """
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda pair: pair[1].data_offsets):
        begin, end = tensor.data_offsets
        if tensor.dtype not in BITS:
            raise Malformed(f"tensor {name} has the unknown type {tensor.dtype!r}")
        bits = math.prod(tensor.shape) * BITS[tensor.dtype]
        if bits % 8 or bits // 8 != end - begin:
            raise Malformed(
                f"tensor {name}: {tensor.dtype} in shape {list(tensor.shape)} has {bits / 8:g} bytes, not {end - begin}"
            )
        if begin != at:
            raise Malformed(f"tensor {name} begins at {begin}, not at {at}, where the one before it ends")
        at = end
    if at != data_bytes:
        raise Malformed(f"its tensors end at {at} of {data_bytes} bytes")
