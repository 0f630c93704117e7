"""Pictures for tests of the page, as a worker would have made them."""

from __future__ import annotations

import importlib.util
from typing import Any

from msgspec.structs import replace

from schemas.message import Attachment
from schemas.picture import Drawn
from tests.connectors.web.double import DoubleHost
from tests.tools import painter

_spec = importlib.util.spec_from_file_location("roost_painter", painter.SITE / "roost_painter.py")
assert _spec is not None
assert _spec.loader is not None
_paint = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_paint)
JPEG = _paint.jpeg((200, 40, 45))


def png(seed: int, width: int = 64, height: int = 64) -> bytes:
    """Of one colour, another for each seed."""
    return bytes(_paint.png(width, height, (seed * 67 % 256, seed * 151 % 256, seed * 211 % 256)))


async def made(host: DoubleHost, prompt: str, seed: int, **drawn: Any) -> Attachment:
    """A picture in the blob store."""
    how = Drawn(prompt=prompt, seed=seed, width=64, height=64, steps=4, model="painter", version="painter-1")
    how = replace(how, **drawn)
    stored = await host.store(png(seed, how.width, how.height), "image/png", f"painter-{seed}.png")
    return replace(stored, drawn=how)
