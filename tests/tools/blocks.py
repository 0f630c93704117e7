"""Random blocks of quantised weights, as they lie in a GGUF file. Pure: sizes and a generator of numbers in, bytes out.

The weights of a matrix of `columns` inputs are centred and spread by about 1/√columns, so that activations keep
their size from layer to layer. What always holds: the same seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from msgspec import Struct

PAGE_BLOCKS = 65_521
"""A prime, so that rows begin at every place of the repeated page and no two of the first 65,521 are alike."""


class Layout(Struct, frozen=True):
    """A block: its weights, the fields it consists of, which of them are scales, and the spread at a scale of 1.

    `scales` maps a field to what it is of the block's scale; all other fields are random bits.
    """

    weights: int
    fields: tuple[tuple[str, str, int], ...]
    scales: dict[str, float]
    spread: float

    @property
    def dtype(self) -> np.dtype[np.void]:
        return np.dtype([(name, kind, (count,)) for name, kind, count in self.fields])


LAYOUTS: dict[Type, Layout] = {
    Type.Q4_0: Layout(32, (("d", "<f2", 1), ("q", "u1", 16)), {"d": 1.0}, 4.6),
    Type.Q8_0: Layout(32, (("d", "<f2", 1), ("q", "u1", 32)), {"d": 1.0}, 74.0),
    # d·scale·q − dmin·min with q of 0 … 15: 7.5 makes the mean zero
    Type.Q4_K: Layout(
        256, (("d", "<f2", 1), ("dmin", "<f2", 1), ("s", "u1", 12), ("q", "u1", 128)), {"d": 1.0, "dmin": 7.5}, 258.0
    ),
    Type.Q6_K: Layout(256, (("q", "u1", 192), ("s", "u1", 16), ("d", "<f2", 1)), {"d": 1.0}, 1365.0),
}


def size(kind: Type, weights: int) -> int:
    """Bytes of so many weights."""
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return weights // block * block_bytes


class Pages:
    """One page of random blocks for each type, repeated for every tensor from another place on."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._pages: dict[Type, np.ndarray] = {}

    def tensor(self, kind: Type, rows: int, columns: int) -> Iterator[memoryview]:
        """The bytes of a matrix, a page at a time."""
        layout = LAYOUTS[kind]
        if columns % layout.weights:
            raise ValueError(f"{kind.name} wants rows of a multiple of {layout.weights} weights, not {columns}")
        page = self._page(kind, layout).copy()
        for name, share in layout.scales.items():
            page[name] *= np.float16(share / (layout.spread * columns**0.5))
        left = rows * columns // layout.weights
        raw = np.roll(page, -int(self._random.integers(PAGE_BLOCKS))).tobytes()
        block_bytes = layout.dtype.itemsize
        while left > 0:
            take = min(left, PAGE_BLOCKS)
            yield memoryview(raw)[: take * block_bytes]
            left -= take

    def _page(self, kind: Type, layout: Layout) -> np.ndarray:
        if kind not in self._pages:
            raw = self._random.integers(0, 256, PAGE_BLOCKS * layout.dtype.itemsize, dtype=np.uint8)
            page = raw.view(layout.dtype)
            for name in layout.scales:
                page[name] = 1
            self._pages[kind] = page
        return self._pages[kind]
