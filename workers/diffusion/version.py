"""A pipeline's version: what its files hold, weights and configuration.

What always holds: two folders that would draw differently have different versions; a file that has not changed is not
read twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct

from schemas.release import RELEASE_FILE
from workers.diffusion.folder import ADVICE, INDEX, Folder

DIGITS = 12
FILE_BYTES_MAX = 64_000_000
"""Of a file that is no weights: a vocabulary is some megabytes."""


class _File(Struct):
    path: str
    size: int
    sha256: str


class _Release(Struct):
    """What is read of a RELEASE.json."""

    files: tuple[_File, ...]


def version(folder: Folder) -> str:
    """The first digits of the SHA-256 over all files that are loaded.

    Of a release the files' own are known without reading them again: they were verified when they came.
    """
    known = _verified(folder.path)
    lines = []
    for path in sorted(_files(folder)):
        name = path.relative_to(folder.path).as_posix()
        stat = path.stat()
        digest = known.get((name, stat.st_size))
        lines.append(f"{digest or _digest(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)}  {name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:DIGITS]


def _files(folder: Folder) -> Iterator[Path]:
    yield from (path for name in (INDEX, ADVICE) if (path := folder.path / name).exists())
    for part in folder.parts:
        yield from part.weights.files if part.weights else ()
        for path in (folder.path / part.name).iterdir():
            if path.suffix in {".json", ".txt", ".model"} and path.stat().st_size <= FILE_BYTES_MAX:
                yield path


def _verified(path: Path) -> dict[tuple[str, int], str]:
    """The SHA-256 of the files of an installed release."""
    try:
        release = msgspec.json.decode((path / RELEASE_FILE).read_bytes(), type=_Release)
    except (OSError, msgspec.MsgspecError):
        return {}
    return {(file.path, file.size): file.sha256 for file in release.files}


@lru_cache(maxsize=256)
def _digest(path: Path, _device: int, _inode: int, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
