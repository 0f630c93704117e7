"""The test-only backend `painter`: real pictures of one colour each, without torch. Registered by an entry point.

    with running(folder, {"models": [ECHO, painter.MODEL]}, environment=painter.environment()) as roost: ...

In this process: `monkeypatch.syspath_prepend(painter.SITE)`; in others: `env={**os.environ, **painter.environment()}`.
Settings: see site/roost_painter.py.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

SITE = Path(__file__).resolve().parent / "site"
MODEL: dict[str, Any] = {"name": "painter", "type": "painter"}
"""For `models:` of a configuration."""


def environment() -> dict[str, str]:
    """What a process must have in its environment to know the backend."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(SITE), os.environ.get("PYTHONPATH", ""))))}


def seen(png: bytes) -> tuple[int, int, tuple[int, int, int]]:
    """Width, height and colour of one of its pictures; raises `ValueError` for anything else."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG")
    width, height = struct.unpack(">II", png[16:24])
    rows = zlib.decompress(_chunk(png, b"IDAT"))
    return width, height, (rows[1], rows[2], rows[3])


def _chunk(png: bytes, kind: bytes) -> bytes:
    at = 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == kind:
            return png[at + 8 : at + 8 + size]
        at += 12 + size
    raise ValueError(f"no {kind.decode()} in it")
