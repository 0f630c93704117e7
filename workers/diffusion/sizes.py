"""How much memory a pipeline takes, from its folder alone, and how it is used so that it fits. Pure.

The figures are upper bounds that were measured against real runs (tests/workers/diffusion/test_sizes.py), not exact.
What always holds: what is planned is within the limit, or is the least there is; what cannot fit is told by its
figures and refused by the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from workers import Demand
from workers.diffusion.folder import Folder, Part
from workers.diffusion.settings import DiffusionSettings

CARD_SHARE = 0.92
"""Of a card's free memory; the rest is left to its driver and to other programs' next needs."""
LIBRARY_BYTES = 160_000_000
"""torch's own buffers, prepared kernels and what its allocator keeps."""
BATCHES = (8, 4, 2)
SMALL_BYTES = 300_000_000
"""A denoiser below it computes several pictures in less time than one after the other, also without a card …"""
BATCH_SMALL, BATCH_LARGE = 8, 1
"""… and above it gains nothing there, while the first picture comes later."""
GUIDED = 2
"""With guidance each step computes the picture twice: with the words and without."""
WORK_LAYERS = 16
"""Copies of a layer's values that exist at once: feed-forward has eight times the channels, norms and sums more."""
WORK_LAYERS_SLICED = 10
DECODE_LAYERS = 3
TILE_SIDE = 512
"""Pictures larger than `resolution` are decoded in tiles, 512 pixels wide where the decoder does not say."""


class Plan(Struct, frozen=True, kw_only=True):
    """How a pipeline is used."""

    batch: int
    pixels: int
    """Of all pictures computed at once."""
    largest: int
    """Of one picture."""
    sliced: bool
    """Attention is computed piece by piece."""
    demand: Demand

    def room(self, pixels: int) -> int:
        """Pictures of so many pixels that are computed at once."""
        return max(1, min(self.batch, self.pixels // pixels))


def within(limit: int | None, card_free: int | None) -> int | None:
    """The lower one of the host's limit and what a card has free, where there is one: all that is planned lies there,
    and the host counts it as the machine's, too."""
    card = None if card_free is None else int(CARD_SHARE * card_free)
    return min((each for each in (limit, card) if each is not None), default=None)


def plan(
    folder: Folder,
    settings: DiffusionSettings,
    *,
    precision_bytes: int,
    precision: str,
    device: str = "cpu",
    adapters_bytes: int = 0,
    limit: int | None = None,
    mapped: bool = False,
) -> Plan:
    """The quickest way within `limit` bytes, else the smallest. `mapped`: count the file that is being read, too."""
    weights = folder.size(precision_bytes) + adapters_bytes
    files = max((part.weights.largest_bytes for part in folder.parts if part.weights), default=0) if mapped else 0
    width, height = settings.size
    area = width * height
    plans = []
    for batch, largest, sliced in _ways(folder, settings, precision_bytes, device):
        pixels = max(batch * area, largest)
        compute = LIBRARY_BYTES + max(
            denoise_bytes(folder, pixels, precision_bytes, sliced=sliced),
            decode_bytes(folder.part("vae", "vqvae"), largest, area, precision_bytes),
        )
        what = (
            f"{settings.resolution} ({largest} pixels at most), {batch} at once, {precision} on {device}"
            f"{', attention in slices' if sliced else ''}"
        )
        demand = Demand(weights=weights + files, mapped=files, compute=compute, what=what)
        plans.append(Plan(batch=batch, pixels=pixels, largest=largest, sliced=sliced, demand=demand))
    return next((each for each in plans if limit is None or each.demand.total <= limit), plans[-1])


def _ways(folder: Folder, settings: DiffusionSettings, size: int, device: str) -> Iterator[tuple[int, int, bool]]:
    """Batch, pixels of the largest picture, and whether attention is sliced; the best first."""
    width, height = settings.size
    denoiser = folder.denoiser
    small = denoiser is None or denoiser.weights is None or denoiser.weights.size(size) < SMALL_BYTES
    most = settings.batch or (BATCH_SMALL if small or device != "cpu" else BATCH_LARGE)
    yield most, settings.largest, False
    if settings.batch is None:
        yield from ((batch, settings.largest, False) for batch in BATCHES if batch < most)
        yield 1, settings.largest, False
    least = settings.batch or 1
    if settings.pixels_max is None:
        yield least, width * height, False
        yield least, width * height, True
    else:
        yield least, settings.largest, True


def denoise_bytes(folder: Folder, pixels: int, precision_bytes: int, *, sliced: bool = False) -> int:
    """What a step holds at once beside the weights, for so many pixels in all."""
    denoiser = folder.denoiser
    config = denoiser.config if denoiser else {}
    cells = pixels / factor(folder) ** 2
    copies = WORK_LAYERS_SLICED if sliced else WORK_LAYERS
    channels = _numbers(config.get("block_out_channels"))
    if channels:
        layers = max(_numbers(config.get("layers_per_block")) or [2])
        levels = [count * cells / 4**i for i, count in enumerate(channels)]
        values = sum(levels) * (layers + 1) + max(levels) * copies
    else:
        heads, dim = config.get("num_attention_heads") or 24, config.get("attention_head_dim") or 128
        patch = config.get("patch_size") or 2
        values = (cells / patch**2 + 512) * float(heads) * float(dim) * 2 * copies
    return int(values * precision_bytes * GUIDED)


def decode_bytes(vae: Part | None, largest: int, area: int, precision_bytes: int) -> int:
    """What decoding one picture holds at once: the last layers, at full size."""
    config = vae.config if vae else {}
    channels = _numbers(config.get("block_out_channels") or config.get("decoder_block_out_channels")) or [128, 256]
    tile = config.get("sample_size")
    tile = tile if isinstance(tile, int) and tile > 0 else TILE_SIDE
    pixels = min(largest, max(area, tile**2))
    values = max(pixels / 4**i * (count + max(channels[i : i + 2])) for i, count in enumerate(channels))
    return int(values * precision_bytes * DECODE_LAYERS) + largest * 3 * 4 * 2


def factor(folder: Folder) -> int:
    """Pixels a side for each cell that is denoised."""
    vae = folder.part("vae", "vqvae")
    if vae is None:
        return 8
    channels = _numbers(vae.config.get("block_out_channels") or vae.config.get("encoder_block_out_channels"))
    return int(2 ** max(0, len(channels) - 1)) if channels else 8


def _numbers(value: Any) -> list[int]:
    """What a configuration says, where it is a number or a list of some."""
    found = value if isinstance(value, list) else [value]
    return [each for each in found if isinstance(each, int) and 0 < each < 1_000_000]
