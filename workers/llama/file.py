"""The model file on disk: which one a path means, whether it is whole, and its version.

Reads only the header and, for the version, hashes the contents. What always holds: llama.cpp is never given a
file that did not pass `gguf.read`.
"""

from __future__ import annotations

import hashlib
import mmap
from functools import lru_cache
from pathlib import Path

from schemas.errors import ConfigError, Untrusted
from workers.llama import gguf

VERSION_DIGITS = 12


def model_file(path: Path | None) -> Path:
    """The .gguf file that `path` (file, folder with exactly one, or link to either) means; raises `ConfigError`."""
    if path is None:
        raise ConfigError("a model of type llama needs `path`: a .gguf file, or a folder that holds one")
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise ConfigError(f"{path}: no such file or folder; put a .gguf file there or change models[].path") from None
    if not real.is_dir():
        return real
    found = sorted(p for p in real.iterdir() if p.suffix == ".gguf")
    if len(found) != 1:
        names = ", ".join(p.name for p in found[:5]) or "none"
        raise ConfigError(
            f"{path}: expected exactly one .gguf file in this folder, found {names}; name the file in models[].path"
        )
    return found[0].resolve()


def header(path: Path) -> gguf.Header:
    """The checked header; raises `Untrusted` when the file is not a whole GGUF file."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size == 0:  # cannot be mapped
                reason = "the file is empty"
            else:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                    try:
                        return gguf.read(memoryview(mapped), size)
                    except gguf.Malformed as error:
                        reason = str(error)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from None
    raise Untrusted(f"{path} is not a usable model file: {reason}; fetch or copy it again", code="model_file")


def version(path: Path) -> str:
    """The first digits of the file's SHA-256; remembered while the file is unchanged."""
    stat = path.stat()
    return _digest(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)[:VERSION_DIGITS]


@lru_cache(maxsize=64)
def _digest(path: Path, _device: int, _inode: int, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
