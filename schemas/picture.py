"""Pictures: what is asked for beside the words, how far one is, and what is known of one that is done."""

from __future__ import annotations

import re

from msgspec import Struct

SIZE = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})")
"""`512x768`: width and height in pixels."""
EXTENSION = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
"""How files of pictures that models make are named."""


class Drawing(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How to draw. Empty and `None` mean: the model's own default. The words are the message's text, the seed and the
    number of pictures are `Sampling.seed` and `Sampling.n`, a LoRA adapter `Sampling.adapter`; a picture to start from
    comes as an attachment."""

    size: str = ""
    """`WIDTHxHEIGHT` in pixels, multiples of 8."""
    steps: int | None = None
    guidance: float | None = None
    """How closely to follow the words; up to 1 the negative prompt has no effect."""
    negative: str = ""
    """What should not be seen."""
    scheduler: str = ""
    """`ddim`, `euler` …: see docs/components/diffusion.md."""
    strength: float | None = None
    """Of a picture to start from, how much may change: 0 is nothing, 1 is all of it."""


class Progress(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How far a picture is. `preview`: what it looks like by now, small; the bytes of a JPEG, in base64 on the wire."""

    step: int
    steps: int
    preview: bytes = b""


class Drawn(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How a picture was made: with this, and the same model version, it can be made again."""

    prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float = 0.0
    negative: str = ""
    scheduler: str = ""
    strength: float | None = None
    adapter: str = ""
    model: str = ""
    version: str = ""


def size_of(text: str) -> tuple[int, int] | None:
    """Width and height of `512x768`; None where it says nothing of the kind."""
    found = SIZE.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None
