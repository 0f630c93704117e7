"""The colours of a picture, for golden prompts. Needs Pillow, which comes with whatever makes pictures."""

from __future__ import annotations

import io

COLOURS = 16
SHARE = 0.01
SIDE = 256


def palette(data: bytes) -> tuple[str, ...]:
    """Colours (`#rrggbb`, the most frequent first) that each cover at least `SHARE` of the picture.

    Flat areas keep their colour; a picture with many shades gets the middles of their groups.
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
    flat = picture.quantize(COLOURS)
    values = flat.getpalette() or []
    counts = sorted(flat.getcolors() or [], reverse=True)
    pixels = picture.width * picture.height
    found = [values[3 * i : 3 * i + 3] for count, i in counts if isinstance(i, int) and count >= SHARE * pixels]
    return tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in found)
