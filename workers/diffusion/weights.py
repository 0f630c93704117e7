"""The weights' files of one part of a pipeline: which ones there are, and whether they are whole.

Reads headers alone. What always holds: only safetensors files are taken, each as long as its header says; weights that
exist only as pickles, which run code when they are read, are refused.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from schemas import safetensors
from schemas.errors import ConfigError, Untrusted
from workers.diffusion import memory

PICKLED = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"}
NAME = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model|pytorch_model)(\.(?P<variant>fp16|bf16|fp32))?"
    r"(?P<part>-\d{5}-of-(?P<count>\d{5}))?\.safetensors"
)
"""As diffusers and transformers name them: `model.fp16-00001-of-00002.safetensors`."""
INDEX_BYTES_MAX = 32_000_000
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}


class Weights(Struct, frozen=True):
    """What a part's files hold."""

    files: tuple[Path, ...]
    tensors: int
    floats: int
    """Numbers that are kept in the precision that is chosen …"""
    others_bytes: int
    """… and bytes of all that keeps its own."""
    largest_bytes: int
    """Of the largest file."""

    def size(self, precision_bytes: int) -> int:
        """Bytes in memory."""
        return self.floats * precision_bytes + self.others_bytes


class _Index(Struct):
    weight_map: dict[str, str]


def variants(folder: Path) -> set[str]:
    """The variants (`fp16` …; empty is the plain one) in which a part has weights."""
    return {found["variant"] or "" for path in _files(folder) if (found := NAME.fullmatch(path.name))}


def weights(folder: Path, variant: str) -> Weights:
    """The files of one variant, all of them checked; raises `ConfigError` for what is not there, `Untrusted` for what
    is not whole."""
    files = _chosen(folder, variant)
    headers = [header(file) for file in files]
    tensors = [tensor for each in headers for tensor in each.tensors.values()]
    return Weights(
        files=files,
        tensors=len(tensors),
        floats=sum(math.prod(t.shape) for t in tensors if t.dtype in FLOATS),
        others_bytes=sum(t.data_offsets[1] - t.data_offsets[0] for t in tensors if t.dtype not in FLOATS),
        largest_bytes=max((file.stat().st_size for file in files), default=0),
    )


def header(path: Path) -> safetensors.Header:
    """The checked header of a safetensors file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if not size:
                reason = "the file is empty"
            else:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                    try:
                        return safetensors.read(view, size)
                    except safetensors.Malformed as error:
                        reason = str(error)
    except OSError as error:
        memory.check(error, str(path))
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from None
    raise Untrusted(f"{path} is not a whole safetensors file: {reason}; copy or fetch it again", code="model_file")


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() or path.is_symlink())
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror or error}; copy the whole folder again") from None


def _chosen(folder: Path, variant: str) -> tuple[Path, ...]:
    named = [(path, found) for path in _files(folder) if (found := NAME.fullmatch(path.name))]
    plain = {found["variant"] or "" for _, found in named}
    taken = variant if variant in plain else ""
    of_it = [(path, found) for path, found in named if (found["variant"] or "") == taken]
    whole = [path for path, found in of_it if not found["part"]]
    if whole:
        return (whole[0],)
    parts = tuple(path for path, _ in of_it)
    if not parts:
        raise _none(folder)
    _check_parts(folder, parts, int(of_it[0][1]["count"]))
    return parts


def _check_parts(folder: Path, parts: Sequence[Path], count: int) -> None:
    """All parts are there, and the index, without which nobody reads them, names no other file."""
    indexes = sorted(folder.glob("*.safetensors.index*.json"))
    names = {path.name for path in parts}
    if len(parts) != count or not indexes:
        missing = "its index (….safetensors.index.json)" if len(parts) == count else f"{count - len(parts)} of {count}"
        raise ConfigError(f"{folder}: these weights are split into {count} files, and {missing} is missing; copy all")
    for index in indexes:
        try:
            with index.open("rb") as file:
                data = file.read(INDEX_BYTES_MAX + 1)
            wanted = set(msgspec.json.decode(data, type=_Index).weight_map.values())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Untrusted(f"{index} is not an index of weights: {error}; copy it again", code="model_file") from None
        if wanted == names:
            return
    raise Untrusted(f"{indexes[0]} names other files than there are; copy the whole folder again", code="model_file")


def _none(folder: Path) -> ConfigError | Untrusted:
    pickled = [path.name for path in _files(folder) if path.suffix in PICKLED]
    if pickled:
        return Untrusted(
            f"{folder} has its weights only as a pickle ({', '.join(pickled[:3])}), which can run any code when it is "
            "read; convert it to safetensors (in diffusers: `save_pretrained(…, safe_serialization=True)`), or take "
            "the safetensors version of this model",
            code="model_file",
        )
    return ConfigError(f"{folder} holds no weights (….safetensors); copy the whole folder again")
