"""Releases for tests that need no keys: files cut by the publisher's own code into a folder of chunks."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping
from pathlib import Path

from schemas.release import Chunk, Chunking, Release, ReleaseFile
from updater.publish.cut import cut

SMALL = Chunking(least=1_024, average=4_096, most=16_384)
"""So that a file of some hundred kilobytes has tens of chunks."""


def weights(data: bytes) -> bytes:
    """A safetensors file of one tensor that holds `data`."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def noise(seed: int, size: int) -> bytes:
    source = random.Random(seed)
    return b"".join(source.randbytes(min(1 << 20, size - at)) for at in range(0, size, 1 << 20))


def cut_release(
    repository: Path, version: str, files: Mapping[str, bytes], chunking: Chunking = SMALL, name: str = "small"
) -> Release:
    """Write the chunks of `files` to `repository`; the version is the sequence too."""
    made = []
    repository.mkdir(parents=True, exist_ok=True)
    draft = repository / "draft"
    for path, content in files.items():
        draft.write_bytes(content)

        def keep(chunk: Chunk, data: memoryview) -> None:
            place = repository / chunk.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)

        done = cut(draft, chunking, keep)
        made.append(ReleaseFile(path=path, size=done.size, sha256=done.sha256, chunks=done.chunks))
    draft.unlink(missing_ok=True)
    return Release(
        name=name, version=version, sequence=int(version), files=tuple(made), created_at=1.0, chunking=chunking
    )
