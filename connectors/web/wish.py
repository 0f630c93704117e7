"""What a page may ask of a picture beside its words. Decoded strictly: a field that does not exist is a mistake of
the page, not something to draw without. Whether values make sense is for the gateway and the model to say.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from connectors.host.wishes import SIDE_MIN, SIDE_UNIT
from schemas.message import Sampling
from schemas.picture import Drawing, size_of

UNIT_PX = 64
"""Sides of offered sizes are multiples of this: what every common autoencoder can do."""
SMALL_PX = 512
"""Models that draw smaller than this go by the door's own unit."""
RATIOS = (3 / 4, 9 / 16)


class DrawingWish(Drawing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As `Drawing`, and nothing else."""

    def drawing(self) -> Drawing:
        return Drawing(**msgspec.structs.asdict(self))


class SamplingWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of `Sampling` concerns a picture."""

    seed: int | None = None
    n: int = 1
    adapter: str = ""

    def sampling(self) -> Sampling:
        return Sampling(seed=self.seed, n=self.n, adapter=self.adapter)


def sizes(resolution: str) -> tuple[str, ...]:
    """Sizes to offer for a model: its own first, then squares, portraits and landscapes of at most as many pixels."""
    own = size_of(resolution)
    if own is None:
        return ()
    area = own[0] * own[1]
    unit = UNIT_PX if min(own) >= SMALL_PX else SIDE_UNIT
    side = max(unit, int(area**0.5) // unit * unit)
    found = [own, (side, side)]
    for ratio in RATIOS:
        short = max(unit, round((area * ratio) ** 0.5 / unit) * unit)
        long = max(unit, area // short // unit * unit)
        found += [(short, long), (long, short)]
    return tuple(dict.fromkeys(f"{width}x{height}" for width, height in found if min(width, height) >= SIDE_MIN))
