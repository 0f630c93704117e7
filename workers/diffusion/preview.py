"""What a picture looks like while it is drawn: small JPEGs, from what is being denoised.

Decoding it whole would cost more than the step. A linear map from its channels to colours is fitted once, to a picture
of coloured patches that the pipeline's own encoder has seen; a folder may bring a small decoder instead. What always
holds: a preview is at most `SIDE` pixels wide and high and `BYTES_MAX` long, and previews cost at most `SHARE` of the
time.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

SIDE = 128
BYTES_MAX = 8_000
QUALITIES = (80, 60, 40, 20, 5)
SHARE = 0.05
PATCHES = 12
"""A side of the picture that the map is fitted to."""
SPREAD = 1.3
"""A clean picture may have values that deviate so much more than those of the patches."""
CELLS = 2
"""A side of a patch, in cells: one would be mixed with its neighbours."""


class Pace:
    """When a preview is due."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`every_s` 0: after every step, whatever it costs."""
        self._every_s = every_s
        self._clock = clock
        self._next = clock()

    def due(self) -> bool:
        return self._clock() >= self._next

    def spent(self, seconds: float) -> None:
        """One was made, and took so long."""
        self._next = self._clock() + (max(self._every_s, seconds / SHARE) if self._every_s else 0.0)


class Sketch:
    """From the values that are denoised to colours, by a linear map."""

    def __init__(self, matrix: torch.Tensor, spread: float) -> None:
        """`matrix`: channels and one, times three; `spread`: the usual deviation of the values."""
        self._matrix = matrix
        self._spread = spread

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """(channels, height, width) → (3, height, width), 0 to 1. Noise spreads values, and is scaled down."""
        channels, height, width = values.shape
        flat = values.float().cpu().reshape(channels, -1)
        flat = flat / max(1.0, float(flat.std()) / self._spread)
        colours = self._matrix[:-1].T @ flat + self._matrix[-1:].T
        return colours.reshape(3, height, width).clamp(0, 1)


def fitted(encode: Callable[[torch.Tensor], torch.Tensor], factor: int) -> Sketch:
    """`encode`: a picture (1, 3, height, width; -1 to 1) to the values that are denoised; `factor`: pixels for each of
    them, a side."""
    import torch

    patches = torch.rand(1, 3, PATCHES, PATCHES, generator=torch.Generator().manual_seed(1))
    patches[:, :, ::2] = patches[:, :, ::2].round()  # bright colours, too
    cells = patches.repeat_interleave(CELLS, 2).repeat_interleave(CELLS, 3)
    picture = cells.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    values = encode(picture * 2 - 1)[0].float().cpu()
    flat = values.reshape(values.shape[0], -1).T
    known = torch.cat([flat, torch.ones(flat.shape[0], 1)], dim=1)
    matrix = torch.linalg.lstsq(known, cells[0].reshape(3, -1).T, driver="gelsd").solution
    return Sketch(matrix, max(float(flat.std()) * SPREAD, 1e-3))


class SmallDecoder:
    """From the values that are denoised to colours, by an AutoencoderTiny."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._cells = SIDE // 2 ** (len(decoder.config.decoder_block_out_channels) - 1)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """As `Sketch`."""
        import torch

        height, width = values.shape[1:]
        scale = min(1.0, self._cells / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        small = torch.nn.functional.interpolate(values[None].to(self._decoder.dtype), size=size, mode="area")
        colours: torch.Tensor = self._decoder.decode(small).sample[0]
        return (colours.float().cpu() / 2 + 0.5).clamp(0, 1)


def jpeg(colours: torch.Tensor, size: tuple[int, int]) -> bytes:
    """The preview of a picture of this `size`; empty where the values are no numbers."""
    from PIL import Image

    if not bool(colours.isfinite().all()):
        return b""
    width, height = size
    scale = min(1.0, SIDE / max(width, height))
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = pixels(colours).resize(shown, Image.Resampling.BICUBIC)
    for quality in QUALITIES:
        out = io.BytesIO()
        small.save(out, "JPEG", quality=quality)
        if out.tell() <= BYTES_MAX:
            return out.getvalue()
    return b""


def pixels(colours: torch.Tensor) -> Image:
    """(3, height, width), 0 to 1 → a picture."""
    import torch
    from PIL import Image

    eight = (colours.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(eight.permute(1, 2, 0).contiguous().cpu().numpy())
