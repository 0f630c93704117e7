"""Cutting: one pass, the same cuts everywhere, and little that is new when little has changed."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from blake3 import blake3

from schemas.errors import Rejected
from schemas.release import Chunking
from updater.publish.cut import cut, pieces


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_chunks_put_together_are_the_file_and_have_its_hashes(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3_000_000)
    kept: list[bytes] = []
    found = cut(written(tmp_path / "a", data), keep=lambda chunk, piece: kept.append(bytes(piece)))
    assert b"".join(kept) == data
    assert [chunk.blake3 for chunk in found.chunks] == [blake3(piece).hexdigest() for piece in kept]
    assert [chunk.size for chunk in found.chunks] == [len(piece) for piece in kept]
    assert (found.size, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_all_but_the_last_chunk_keep_to_the_bounds(tmp_path: Path) -> None:
    chunking = Chunking(least=4_096, average=16_384, most=65_536)
    found = cut(written(tmp_path / "a", random.Random(2).randbytes(2_000_000)), chunking)
    assert all(4_096 <= chunk.size <= 65_536 for chunk in found.chunks[:-1])
    zeros = cut(written(tmp_path / "b", bytes(1_000_000)), chunking)
    assert max(chunk.size for chunk in zeros.chunks) == 65_536


def test_a_kilobyte_in_front_and_a_change_in_the_middle_leave_most_chunks_as_they_were(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(30_000_000)
    changed = random.Random(4).randbytes(1_024) + data[:15_000_000] + b"other" + data[15_000_005:]
    before = {chunk.blake3 for chunk in cut(written(tmp_path / "a", data)).chunks}
    after = cut(written(tmp_path / "b", changed)).chunks
    assert sum(chunk.size for chunk in after if chunk.blake3 not in before) < 0.1 * len(data)


def test_the_cuts_do_not_depend_on_where_a_reader_stops(tmp_path: Path) -> None:
    path = written(tmp_path / "a", random.Random(5).randbytes(2_000_000))
    with path.open("rb", buffering=0) as file:
        assert tuple(chunk for chunk, _ in pieces(file.fileno())) == cut(path).chunks


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537])
def test_small_files_are_cut_too(tmp_path: Path, size: int) -> None:
    found = cut(written(tmp_path / "a", bytes(size)))
    assert sum(chunk.size for chunk in found.chunks) == found.size == size


def test_a_file_that_grows_meanwhile_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a", bytes(3_000_000))

    def grow(*_: object) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(Rejected, match="was changed while it was read"):
        cut(path, keep=grow)
