"""What model files say about themselves: backend, licence, origin, and whether all parts of a split one are there."""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from msgspec import Struct

from schemas import gguf
from schemas.errors import Rejected
from updater.formats import licence_of

CARD_BYTES_MAX = 1_000_000
FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)


class Facts(Struct, frozen=True):
    """Empty where the files do not say. For people: nothing is decided by licence and origin."""

    type: str = ""
    licence: str = ""
    origin: str = ""


def describe(files: Sequence[tuple[str, Path]]) -> Facts:
    """Out of the first header of weights that says it, or else a model card (README.md) with front matter."""
    names = {name for name, _ in files}
    kind = "llama" if any(name.lower().endswith(".gguf") for name in names) else ""
    kind = kind or ("diffusion" if "model_index.json" in names else "")
    licence = origin = ""
    for _, path in files:
        said = licence_of(path)
        licence, origin = licence or said[0], origin or said[1]
    card = next((front_matter(path) for name, path in files if name == "README.md"), {})
    return Facts(kind, licence or card.get("license", ""), origin or card.get("base_model", ""))


def front_matter(path: Path) -> dict[str, str]:
    """The plain texts at the head of a model card; empty when there are none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        match = FRONT.match(file.read(CARD_BYTES_MAX))
    if not match:
        return {}
    try:
        said = yaml.safe_load(match[1])
    except yaml.YAMLError:
        return {}
    return {key: value for key, value in said.items() if isinstance(value, str)} if isinstance(said, dict) else {}


def check_parts(files: Sequence[tuple[str, Path]]) -> None:
    """Raise `Rejected` when a GGUF model in several files is not all here. The files have passed their own checks."""
    models: dict[str, list[tuple[str, Path]]] = {}
    for name, path in files:
        if match := PART.fullmatch(name):
            models.setdefault(match[1], []).append((name, path))
    for model, parts in models.items():
        reason = ""
        try:
            gguf.joined([_header(path) for _, path in sorted(parts)])
        except gguf.Malformed as error:
            reason = str(error)
        if reason:
            raise Rejected(f"the parts of {model} do not make a whole model: {reason}; name all of them", code="parts")


def _header(path: Path) -> gguf.Header:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return gguf.read(memoryview(data), len(data))
