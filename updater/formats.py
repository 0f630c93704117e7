"""Is a file what its name says, and nothing that could run? Asked when its hash is right and before anything loads it.

Only headers of weights are read, through a memory map; texts are read whole. What always holds: a file that passes has
the form of its suffix; pickles, archives, programs and scripts are refused whatever their name is.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import msgspec

from schemas import gguf, safetensors
from schemas.errors import Untrusted
from schemas.release import SUFFIXES

TEXT_BYTES_MAX = 268_435_456
"""The largest tokenizers have some 40 MB of JSON."""
PNG = b"\x89PNG\r\n\x1a\n"

CODE: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(magic, re.DOTALL))
    for kind, magic in (
        ("an archive (zip, as PyTorch's pickles have it)", rb"PK(\x03\x04|\x05\x06|\x07\x08)"),
        ("a compressed file", rb"\x1f\x8b\x08|BZh|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!\x1a"),
        ("a pickle", rb"\x80[\x02-\x05][^\x00]"),
        ("a program (ELF)", rb"\x7fELF"),
        ("a program (Mach-O) or Java class", rb"\xfe\xed\xfa[\xce\xcf]|[\xce\xcf]\xfa\xed\xfe|\xca\xfe\xba\xbe"),
        ("a program (PE)", rb"MZ(?!\x00{6})"),
        ("a script", rb"(\xef\xbb\xbf)?#!(?!\x00{6})"),
        ("a WebAssembly module", rb"\x00asm"),
        ("compiled Python", rb".[\x0b-\x0f]\r\n[\x00-\x03]\x00\x00\x00"),
        ("an HDF5 file (which may hold pickles)", rb"\x89HDF\r\n\x1a\n"),
    )
)
"""Kinds by how they begin. A safetensors file may begin with `MZ` or `#!` too, as the length of its header: then six
zeros follow, which no program and no script has there."""


def check(path: Path, relative: str) -> None:
    """Raise `Untrusted` unless the file at `path` has the form that its name in the release, `relative`, says."""
    suffix = PurePosixPath(relative).suffix.lower()
    if suffix not in SUFFIXES:
        raise Untrusted(f"{relative}: files of kind {suffix or 'without suffix'} are refused", code="executable")
    with path.open("rb") as file:
        size = path.stat().st_size
        head = file.read(16)
        for kind, magic in CODE:
            if magic.match(head):
                raise Untrusted(f"{relative} is {kind}: it may hold code and is refused", code="executable")
        if size == 0:
            reason = "" if suffix in (".txt", ".md") else "the file is empty"
        elif size > TEXT_BYTES_MAX and suffix in TEXTS:
            reason = f"it has {size} bytes, {TEXT_BYTES_MAX} at most"
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                reason = CHECKS[suffix](mapped)
    if reason:
        raise Untrusted(f"{relative} is not a usable {suffix} file: {reason}", code="format")


def licence_of(path: Path) -> tuple[str, str]:
    """The licence and the origin that the header of a weights file names; empty where it names none or is no such file.

    Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and https://github.com/Stability-AI/ModelSpec.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            said = _said(mapped, path.suffix.lower())
    except (OSError, ValueError):
        return "", ""
    licence = [said[key] for key in LICENCE_KEYS if said.get(key)]
    origin = [said[key] for key in ORIGIN_KEYS if said.get(key)]
    return (licence or [""])[0], (origin or [""])[0]


LICENCE_KEYS = ("general.license", "general.license.name", "modelspec.license", "license")
ORIGIN_KEYS = (
    "general.source.repo_url", "general.source.url", "general.repo_url", "general.url",
    "general.base_model.0.repo_url", "general.source.huggingface.repository", "general.basename",
    "modelspec.implementation_origin", "modelspec.author", "general.organization", "general.author",
)  # fmt: skip


def _said(mapped: mmap.mmap, suffix: str) -> dict[str, str]:
    try:
        if suffix == ".gguf":
            meta = gguf.read(memoryview(mapped), len(mapped)).meta
            return {key: value for key, value in meta.items() if isinstance(value, str)}
        if suffix == ".safetensors":
            return safetensors.read(memoryview(mapped), len(mapped)).metadata
    except (gguf.Malformed, safetensors.Malformed):
        pass
    return {}


def _gguf(mapped: mmap.mmap) -> str:
    try:
        gguf.read(memoryview(mapped), len(mapped))
    except gguf.Malformed as error:
        return str(error)
    return ""


def _safetensors(mapped: mmap.mmap) -> str:
    try:
        safetensors.read(memoryview(mapped), len(mapped))
    except safetensors.Malformed as error:
        return str(error)
    return ""


def _text(mapped: mmap.mmap) -> str:
    try:
        text = str(mapped, "utf-8")
    except UnicodeDecodeError as error:
        return f"byte {error.start} is not UTF-8"
    return f"character {text.index(chr(0))} is a zero, which no text has" if "\0" in text else ""


def _json(mapped: mmap.mmap) -> str:
    try:
        msgspec.json.decode(mapped, type=dict[str, msgspec.Raw] | list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if not _of_python(mapped):
            return f"not JSON ({error})"
    return _text(mapped)


def _of_python(mapped: mmap.mmap) -> bool:
    """JSON with `Infinity` and `NaN`, as Python writes it: schedulers of diffusers have it in their configurations."""
    if len(mapped) > PYTHON_BYTES_MAX:
        return False
    try:
        return isinstance(json.loads(mapped[:]), dict | list)
    except (ValueError, RecursionError):
        return False


def _png(mapped: mmap.mmap) -> str:
    whole = mapped[:8] == PNG and mapped[12:16] == b"IHDR" and mapped[-8:-4] == b"IEND"
    return "" if whole else "it does not begin and end as a PNG image does"


def _pieces(mapped: mmap.mmap) -> str:
    """A SentencePiece model: fields 1 to 5 of protocol buffers, each with a length, up to the end; or a text."""
    at, end = 0, len(mapped)
    while at < end:
        size, begin = _length(mapped, at + 1)
        if mapped[at] not in SENTENCEPIECE or not 0 < begin <= end - size:
            return _text(mapped) and "neither a SentencePiece model nor a text"
        at = begin + size
    return ""


def _length(mapped: mmap.mmap, at: int) -> tuple[int, int]:
    """The number at this place, seven bits a byte, and where it ends; 0 where it does not end."""
    size = 0
    for index, byte in enumerate(mapped[at : at + 5]):
        size |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return size, at + index + 1
    return 0, 0


PYTHON_BYTES_MAX = 1_000_000
"""No scheduler says more; a whole file is held in memory to be read in this way."""
SENTENCEPIECE = frozenset(number << 3 | 2 for number in range(1, 6))
TEXTS = frozenset({".json", ".txt", ".md", ".jinja", ".model"})
CHECKS: dict[str, Callable[[mmap.mmap], str]] = {
    ".gguf": _gguf,
    ".safetensors": _safetensors,
    ".json": _json,
    ".txt": _text,
    ".md": _text,
    ".jinja": _text,
    ".model": _pieces,
    ".png": _png,
}
"""What is wrong with a file of each kind; empty where nothing is."""
