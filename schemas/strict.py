"""What the whole configuration stands on: strict Structs, names, and sizes as people write them."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
"""Names of models, connectors and keys: safe in a subject, a file name and a URL."""


Size = Annotated[str, Meta(pattern=r"^\d+(\.\d+)?\s*([kKMGT]i?)?B?$|^\d+(\.\d+)?%$")]
"""Bytes as people write them: `3 GB`, `512MiB`, or a share of the machine's memory: `60%`."""


class Strict(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything the operator writes."""


def bytes_of(size: Size, whole: int) -> int:
    """Bytes that `size` says; a share is one of `whole` bytes. k, M, G, T are powers of 1000, Ki … of 1024."""
    text = size.strip().removesuffix("B").strip()
    if text.endswith("%"):
        return int(whole * float(text[:-1]) / 100)
    step = 1024 if text.endswith("i") else 1000
    text = text.removesuffix("i")
    power = "kmgt".find(text[-1:].lower()) + 1 if text[-1:].isalpha() else 0
    return int(float(text[:-1] if power else text) * step**power)
