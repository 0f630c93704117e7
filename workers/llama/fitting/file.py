"""The model file on disk: which one a path means, its parts where it is split, whether it is whole, its version.

Reads only the header and, for the version, hashes the contents. What always holds: llama.cpp is never given a
file that did not pass `gguf.read`.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct

from schemas import gguf
from schemas.errors import ConfigError, Untrusted
from schemas.release import RELEASE_FILE

VERSION_DIGITS = 12
SPLIT = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
"""How llama.cpp names the parts of a model, from 00001."""


def model_file(path: Path | None) -> Path:
    """The .gguf file that `path` (file, folder with exactly one model, or link to either) means; raises `ConfigError`.

    Of a model in several files it is the first, and all of them are there.
    """
    if path is None:
        raise ConfigError("a model of type llama needs `path`: a .gguf file, or a folder that holds one")
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise ConfigError(f"{path}: no such file or folder; put a .gguf file there or change models[].path") from None
    if not real.is_dir():
        return _whole(path.parent.resolve() / path.name if SPLIT.fullmatch(path.name) else real)
    found = sorted(p for p in real.iterdir() if p.suffix == ".gguf")
    if len({_model(p) for p in found}) != 1:
        names = ", ".join(p.name for p in found[:5]) or "none"
        raise ConfigError(
            f"{path}: expected exactly one .gguf file in this folder, found {names}; name the file in models[].path"
        )
    return _whole(found[0] if SPLIT.fullmatch(found[0].name) else found[0].resolve())


def parts(path: Path) -> tuple[Path, ...]:
    """All files of the model whose first or only file is `path`, as llama.cpp names them."""
    named = SPLIT.fullmatch(path.name)
    if named is None or not 1 <= int(named["count"]) <= gguf.SPLITS_MAX:
        return (path,)
    count = int(named["count"])
    return tuple(path.with_name(f"{named['name']}-{n:05d}-of-{count:05d}.gguf") for n in range(1, count + 1))


def _model(path: Path) -> str:
    """What the parts of one model have in common."""
    named = SPLIT.fullmatch(path.name)
    return f"{named['name']} of {named['count']}" if named else path.name


def _whole(path: Path) -> Path:
    """The first part; raises `ConfigError` when one is missing."""
    every = parts(path)
    missing = [part.name for part in every if not part.exists()]
    if missing:
        raise ConfigError(
            f"{path.parent}: this model is split into {len(every)} files, and {', '.join(missing[:5])} "
            f"{'is' if len(missing) == 1 else 'are'} missing; fetch all of them into this folder"
        )
    return every[0]


def header(path: Path) -> gguf.Header:
    """The checked header of all parts; raises `Untrusted` when a file is not a whole GGUF file."""
    read = [_header(part) for part in parts(path)]
    try:
        return gguf.joined(read)
    except gguf.Malformed as error:
        reason = f"{error}; fetch all of its files again"
    raise Untrusted(f"{path} is not a usable model file: {reason}", code="model_file")


def _header(path: Path) -> gguf.Header:
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
    """The first digits of the file's SHA-256 (of all parts' together); remembered while the files are unchanged.

    Of a release it is known without reading the file again: it was verified when it came.
    """
    digests = []
    for part in parts(path):
        stat = part.stat()
        if (known := _verified(part, stat.st_size)) is not None:
            digests.append(known)
            continue
        digests.append(_digest(part, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return whole[:VERSION_DIGITS]


class _File(Struct):
    path: str
    size: int
    sha256: str


class _Release(Struct):
    """What is read of a RELEASE.json."""

    files: tuple[_File, ...]


def _verified(path: Path, size: int) -> str | None:
    """The SHA-256 of a file of an installed release."""
    try:
        release = msgspec.json.decode((path.parent / RELEASE_FILE).read_bytes(), type=_Release)
    except (OSError, msgspec.MsgspecError):
        return None
    return next((file.sha256 for file in release.files if file.path == path.name and file.size == size), None)


@lru_cache(maxsize=64)
def _digest(path: Path, _device: int, _inode: int, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
