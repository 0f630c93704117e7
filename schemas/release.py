"""Release: one version of a model as its publisher describes it. The file `<name>/<version>.json` of a repository.

A repository has three folders: `metadata/` (TUF), `targets/` (releases and the list of each model's versions, named by
TUF with their hashes) and `chunks/` (pieces of model files, named by their BLAKE3). What always holds: TUF vouches for
the bytes of a release, the release vouches for every chunk and file, so nothing here is trusted before TUF was asked.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.errors import Untrusted
from schemas.strict import NAME

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Versions: safe in a file name and a URL, in any scheme (`2`, `1.4.0`, `2026-11-23`)."""
RELEASE_FILE = "RELEASE.json"
"""Lies beside the files of an installed release: the release as it was verified."""
FILES_MAX = 512
GOLDENS_MAX = 64
CUT = ((1 << 6, 1 << 20), (1 << 8, 1 << 22), (1 << 10, 1 << 24))
"""Bytes: from where to where `least`, `average` and `most` of a release's chunking may be."""
SUFFIXES = frozenset({".gguf", ".safetensors", ".json", ".txt", ".md", ".jinja", ".model", ".png"})
"""Files that a release may have. None of them can hold code: pickled weights, scripts and libraries are refused."""

Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Chunk(Struct, frozen=True, array_like=True):
    """A piece of a file: BLAKE3 in hex, and bytes. In the repository: `chunks/<first two digits>/<all digits>`."""

    blake3: Hash
    size: int

    @property
    def path(self) -> str:
        return f"chunks/{self.blake3[:2]}/{self.blake3}"


class ReleaseFile(Struct, frozen=True, kw_only=True):
    """One file: where it goes in the release's folder, its size and hash, and its chunks in order."""

    path: str
    size: int
    sha256: Hash
    chunks: tuple[Chunk, ...]


class Chunking(Struct, frozen=True, kw_only=True):
    """How files are cut (FastCDC of 2020), so that an older file without a list can be cut alike. Bytes."""

    least: int = 65_536
    average: int = 262_144
    most: int = 1_048_576


class Expected(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Properties that a good answer has; all that are given must hold."""

    contains: tuple[str, ...] = ()
    """Each of these, whatever their case."""
    contains_any: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    chars_min: int = 1
    chars_max: int | None = None
    json: bool = False
    finish: str = ""
    dimensions: int = 0
    """Of an embedding."""
    sees: tuple[Annotated[str, Meta(pattern=r"^#[0-9a-f]{6}$")], ...] = ()
    """Of a picture: colours that are in it, each on a hundredth of it at least, more or less."""


class Golden(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A prompt whose answer tells whether the model is sound. Asked at temperature 0 before a version may serve."""

    prompt: str
    expect: Expected = Expected()
    system: str = ""
    kind: Literal["chat", "completion", "embedding", "image"] = "chat"
    max_tokens: Annotated[int, Meta(ge=1, le=512)] = 16


class Release(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One version of a model."""

    name: str
    version: str
    files: tuple[ReleaseFile, ...]
    created_at: float
    v: int = 1
    sequence: int = 0
    """Grows with each release of the name: the highest that is not blocked is the newest."""
    type: str = ""
    """The backend that it is for: `llama`, `diffusion` …"""
    chunking: Chunking = Chunking()
    goldens: tuple[Golden, ...] = ()
    changelog: str = ""
    licence: str = ""
    origin: str = ""
    """Where the weights come from: an address, or a sentence."""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class Versions(Struct, frozen=True, kw_only=True):
    """What a repository has of one model, the oldest first: the file `<name>/versions.json`."""

    name: str
    versions: tuple[str, ...]
    v: int = 1


def check_release(release: Release) -> None:
    """What types cannot say: safe names and paths, sizes that add up; raises `Untrusted`."""
    place = f"release {release.name} {release.version}"
    if not NAME.fullmatch(release.name):
        raise Untrusted(f"{place}: names have lower-case letters, digits, - and _, 48 at most", code="release")
    if not VERSION.fullmatch(release.version) or release.version == "versions":
        raise Untrusted(f"{place}: versions have letters, digits, . _ and -, 64 at most", code="release")
    if not 0 < len(release.files) <= FILES_MAX or len(release.goldens) > GOLDENS_MAX:
        raise Untrusted(f"{place}: 1 to {FILES_MAX} files, at most {GOLDENS_MAX} golden prompts", code="release")
    paths = {file.path.lower() for file in release.files}
    if len(paths) != len(release.files):
        raise Untrusted(f"{place}: two files have the same path", code="release")
    if any(str(above) in paths for path in paths for above in PurePosixPath(path).parents):
        raise Untrusted(f"{place}: a file has the path of another's folder", code="release")
    check_chunking(release.chunking, place)
    for file in release.files:
        check_path(file.path, place)
        if file.size < 0 or any(not 0 < chunk.size <= release.chunking.most for chunk in file.chunks):
            raise Untrusted(f"{place}: {file.path} has a chunk of a size that cannot be", code="release")
        if sum(chunk.size for chunk in file.chunks) != file.size:
            raise Untrusted(f"{place}: the chunks of {file.path} do not add up to its size", code="release")


def check_chunking(chunking: Chunking, place: str) -> None:
    """Within what FastCDC cuts and what a few connections may hold in memory; raises `Untrusted`."""
    sizes = (chunking.least, chunking.average, chunking.most)
    bounded = all(low <= size <= high for size, (low, high) in zip(sizes, CUT, strict=True))
    if not bounded or not sizes[0] <= sizes[1] <= sizes[2]:
        raise Untrusted(f"{place}: chunks of {' / '.join(map(str, sizes))} bytes cannot be", code="release")


def check_path(path: str, place: str) -> None:
    """A relative path of plain names with a suffix that cannot hold code; raises `Untrusted`."""
    pure = PurePosixPath(path)
    names = path.split("/")
    plain = all(name and name.strip() == name and not name.startswith(".") and name.isprintable() for name in names)
    if not plain or pure.is_absolute() or "\\" in path or len(path) > 255 or path == RELEASE_FILE:
        raise Untrusted(f"{place}: {path!r} is no path for a file of a release", code="release")
    if pure.suffix.lower() not in SUFFIXES:
        raise Untrusted(
            f"{place}: {path}: files of kind {pure.suffix or 'without suffix'} may hold code and are refused; "
            f"allowed are {', '.join(sorted(SUFFIXES))}",
            code="executable",
        )


def versions_target(name: str) -> str:
    return f"{name}/versions.json"


def release_target(name: str, version: str) -> str:
    return f"{name}/{version}.json"
