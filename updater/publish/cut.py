"""Cutting files into chunks by their content (FastCDC of 2020), each with its BLAKE3, and the file's SHA-256.

What always holds: a file is read once, from front to end, and never whole in memory; the same bytes and `Chunking` give
the same chunks, wherever and whenever they are cut.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3
from msgspec import Struct
from pyfastcdc import FastCDC

from schemas.errors import Rejected
from schemas.release import Chunk, Chunking

Piece = tuple[Chunk, memoryview]
Keep = Callable[[Chunk, memoryview], None]
"""Gets each chunk with its bytes, which are valid only during the call."""
USUAL = Chunking()


class Cut(Struct, frozen=True):
    """A whole file."""

    size: int
    sha256: str
    chunks: tuple[Chunk, ...]


class _Reader:
    """Passes what FastCDC reads through SHA-256."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.sha256 = hashlib.sha256()

    def readinto(self, buffer: memoryview) -> int:
        count = os.readv(self._descriptor, [buffer])
        self.sha256.update(buffer[:count])
        return count


def pieces(descriptor: int, chunking: Chunking = USUAL) -> Iterator[Piece]:
    """The chunks from where `descriptor` stands to its end."""
    yield from _pieces(_Reader(descriptor), chunking)


def cut(path: Path, chunking: Chunking = USUAL, keep: Keep = lambda chunk, data: None) -> Cut:
    """Cut one file; raises `Rejected` when it is changed meanwhile."""
    with path.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        reader = _Reader(file.fileno())
        chunks = []
        for chunk, data in _pieces(reader, chunking):
            keep(chunk, data)
            chunks.append(chunk)
        after = os.fstat(file.fileno())
    size = sum(chunk.size for chunk in chunks)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or size != after.st_size:
        raise Rejected(f"{path} was changed while it was read; wait until it is whole, and try again", code="changed")
    return Cut(size, reader.sha256.hexdigest(), tuple(chunks))


def _pieces(reader: _Reader, chunking: Chunking) -> Iterator[Piece]:
    cutter = FastCDC(chunking.average, min_size=chunking.least, max_size=chunking.most)
    for piece in cutter.cut_stream(reader):
        yield Chunk(blake3(piece.data).hexdigest(), piece.length), piece.data
