"""What has to be fetched when 8 MiB of a file of 256 MiB have changed and 1 KiB was inserted in front of its weights.

A whole update of a running Roost (echo, so that nothing has to load it) from a web server that counts what it sends,
metadata too. Once with the change in one piece, and once in eight. Beside it, computed and not run: fetching the whole
file, and what zsync would ask for with blocks of 256 KiB: those of the new file that lie nowhere in the old one.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from benchmarks import versions
from benchmarks.publisher import publisher, served
from benchmarks.result import Row, main, note
from benchmarks.updating import MODEL, updated

NAME = "delta_bytes"
MIB = 1_048_576
FILE_BYTES, CHANGED_BYTES, INSERTED_BYTES = 256 * MIB, 8 * MIB, 1024
BLOCK_BYTES = 262_144
NEEDLE_BYTES = 64
PIECES = {"1": 1, "2": 8}
"""Releases, and in how many pieces 8 MiB of them are not what they were at the start."""
GOAL = 5.0


async def run(quick: bool) -> list[Row]:
    rows = []
    with publisher(MODEL) as shop:
        note(f"{NAME}: writing the files")
        old = written(shop.folder / "0", 0, seed=0)
        files = {version: written(shop.folder / version, pieces, seed=1) for version, pieces in PIECES.items()}
        for version, file in files.items():
            await shop.prepare(version, file.parent, type="echo")
        async with served(shop.repository) as (url, sent), updated(old.parent, shop, source=url, type="echo") as roost:
            for version, file in files.items():
                chunks, other = sent.chunk_bytes, sent.other_bytes
                change = await roost.take(version)
                chunks, other = sent.chunk_bytes - chunks, sent.other_bytes - other
                if change.fetched != chunks:
                    note(f"{NAME}: the updater says {change.fetched} bytes of chunks, the server {chunks}")
                rows += table(PIECES[version], file.stat().st_size, chunks, other, missing(old, file))
    return rows


def written(folder: Path, pieces: int, seed: int) -> Path:
    """A model file of one large tensor of random bytes, and beside it what echo loads.

    Where `pieces` is not 0: with 1 KiB more in its header, and 8 MiB in so many pieces, evenly spread, of other bytes.
    """
    bits = np.random.default_rng(0).integers(-128, 128, FILE_BYTES, dtype=np.int8)
    for i in range(pieces):
        each = CHANGED_BYTES // pieces
        begin = (i + 1) * FILE_BYTES // (pieces + 2)
        bits[begin : begin + each] = np.random.default_rng(seed + i).integers(-128, 128, each, dtype=np.int8)
    versions.marked("", folder / "echo.json")
    writer = GGUFWriter(folder / "weights.gguf", "llama")
    writer.add_description("x" * (64 + (INSERTED_BYTES if pieces else 0)))
    writer.add_tensor("weights", bits, raw_dtype=GGMLQuantizationType.I8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "weights.gguf"


def missing(old: Path, new: Path) -> int:
    """Bytes of the aligned blocks of `new` that lie nowhere in `old`."""
    absent = 0
    with old.open("rb") as a, new.open("rb") as b:
        before = mmap.mmap(a.fileno(), 0, access=mmap.ACCESS_READ)
        after = mmap.mmap(b.fileno(), 0, access=mmap.ACCESS_READ)
        near = 0
        for begin in range(0, len(after), BLOCK_BYTES):
            block = after[begin : begin + BLOCK_BYTES]
            found = _find(before, block, max(0, near))
            absent += len(block) if found < 0 else 0
            near = (found if found >= 0 else near) + len(block) - INSERTED_BYTES
        before.close()
        after.close()
    return absent


def _find(data: mmap.mmap, block: bytes, near: int) -> int:
    """Where `block` begins in `data`, looked for from `near` on first; -1 where it does not. Random bytes repeat
    nowhere, so the first place of its first bytes is the only one."""
    needle = block[:NEEDLE_BYTES]
    at = data.find(needle, near)
    at = data.find(needle, 0, near + NEEDLE_BYTES) if at < 0 else at
    return at if at >= 0 and data[at : at + len(block)] == block else -1


def table(pieces: int, whole: int, chunks: int, other: int, blocks: int) -> list[Row]:
    place = "8 MiB changed in one piece" if pieces == 1 else f"8 MiB changed in {pieces} pieces"

    def row(what: str, value: float, unit: str = "%", goal: float | None = None) -> Row:
        return Row(benchmark=NAME, what=f"{place}: {what}", value=value, unit=unit, goal=goal, least=False)

    return [
        row("fetched ÷ file", 100 * (chunks + other) / whole, goal=GOAL if pieces == 1 else None),
        row("of it metadata", other / 1000, "kB"),
        row("whole file (computed)", 100.0),
        row("zsync, blocks of 256 KiB, without its list of blocks (computed)", 100 * blocks / whole),
    ]


if __name__ == "__main__":
    main(run)
