"""Model files for the benchmarks: the starter model, and files of a larger model's shape made on first use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks.result import Unavailable, note

ROOT = Path(__file__).resolve().parent.parent
STARTER = ROOT / "models" / "text-generation" / "current"
MADE = ROOT / "build" / "models"
THREADS = os.cpu_count() or 1
SPARE_BYTES = 2_000_000_000
"""Disk that must be left when a model has been written."""


def starter() -> Path:
    """The starter model's file; `make up` fetches it."""
    path = STARTER.resolve()
    if path.is_dir():
        path = next(iter(sorted(path.glob("*.gguf"))), path)
    if not path.is_file():
        raise Unavailable(f"no model at {STARTER}; `make model` fetches the starter model")
    return path


def synthetic(shape: str, kind: str) -> Path:
    """A file with random weights of a named shape (`tests/tools/synthetic.py`), written once."""
    from tests.tools.blocks import size
    from tests.tools.synthetic import SHAPES, TYPES, tensors, write

    path = MADE / f"{shape}.{kind}.gguf"
    if path.is_file():
        return path
    MADE.mkdir(parents=True, exist_ok=True)
    need = sum(size(t.kind, t.rows * t.columns) for t in tensors(SHAPES[shape], TYPES[kind]))
    free = shutil.disk_usage(MADE).free
    if free < need + SPARE_BYTES:
        raise Unavailable(f"{MADE} has {free / 1e9:.1f} GB left; the {shape} model needs {need / 1e9:.1f} GB")
    note(f"writing {path}, once")
    part = path.with_suffix(".part")
    write(part, SHAPES[shape], kind, starter=starter())
    part.rename(path)
    return path
