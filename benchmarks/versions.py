"""Versions of a model that a benchmark can tell apart: copies of a GGUF file of the same length, and echo's files.

They load and compute as the original does, at the same speed.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
from gguf import GGUFReader

NAME_KEY = b"general.name"
NAME_AFTER = 12
"""Bytes of a text's type and length, which stand between its key and itself."""
HEAD_BYTES = 16_777_216
HELPFUL, GRUMPY = b"You are a helpful AI assistant", b"You are a grumpy lighthouse AI"
"""The start of the starter model's own system prompt, and another of the same length."""
STEP_BYTES = 32_768
"""Half of the smallest chunk."""
BLOCK_BYTES = 256 * STEP_BYTES


def linked(source: Path, target: Path) -> Path:
    """The same file once more, without a second copy where the disk can do that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def other(source: Path, target: Path) -> Path:
    """Another name and system prompt in the header, and one weight (the last) changed by the least that can be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        head = bytearray(file.read(HEAD_BYTES))
        at = head.index(NAME_KEY) + len(NAME_KEY) + NAME_AFTER
        head[at : at + 2] = b"V2"
        file.seek(0)
        file.write(head.replace(HELPFUL, GRUMPY))
        file.seek(-4, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-4, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    return target


def all_new(source: Path, target: Path) -> Path:
    """One bit in every 32 KiB of weights is another, so that no chunk of them is on the machine already."""
    target.parent.mkdir(parents=True, exist_ok=True)
    begin = int(GGUFReader(source).data_offset)
    with source.open("rb") as old, target.open("wb") as new:
        new.write(old.read(begin))
        while block := old.read(BLOCK_BYTES):
            bits = np.frombuffer(block, dtype=np.uint8).copy()
            bits[::STEP_BYTES] ^= 1
            new.write(bits.data)
    return target


def marked(mark: str, target: Path) -> Path:
    """An echo "model" whose every word ends with `mark`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"mark": mark}))
    return target
