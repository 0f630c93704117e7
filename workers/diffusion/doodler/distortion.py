"""Drawings made as imperfect as generated pictures: bent, blurred in places, blotchy, in colours that are a bit off.

The judge learns on these, and is tested on others of them: it is to name a car with a dented roof, too.
"""

import torch
from torch import Tensor
from torch.nn import functional as f

BENT = ((4, 0.05), (10, 0.04))
"""Random fields of so many cells a side, and the spread of their displacements in half pictures, at the strongest."""
BLOTCHED = ((6, 0.1), (16, 0.1), (32, 0.1), (96, 0.08))
"""The same for changes of the three colour values, which go from -1 to 1."""
COARSEST = 22
"""The blur goes up to that of a picture of so many pixels a side."""


def distorted(x: Tensor, most: float = 1.0) -> Tensor:
    """Pictures (n, 3, side, side), values from -1 to 1, each distorted in its own way and to its own degree.

    `most`: the strongest of what is above times this.
    """
    return _blotched(_blurred(_bent(x, most), most), most)


def _field(like: Tensor, channels: int, cells: int) -> Tensor:
    """Smooth random numbers of spread 1 at most, (n, channels, side, side)."""
    coarse = torch.randn(len(like), channels, cells, cells)
    return f.interpolate(coarse, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _degree(like: Tensor) -> Tensor:
    return torch.rand(len(like), 1, 1, 1)


def _bent(x: Tensor, most: float) -> Tensor:
    n = len(x)
    angle, scale = 0.08 * torch.randn(n), 1 + 0.05 * torch.randn(n)
    rows = torch.stack((scale * angle.cos(), -scale * angle.sin(), scale * angle.sin(), scale * angle.cos()), 1)
    places = f.affine_grid(torch.cat((rows.view(n, 2, 2), 0.06 * torch.randn(n, 2, 1)), 2), list(x.shape), False)
    for cells, spread in BENT:
        places = places + (most * spread * _degree(x) * _field(x, 2, cells)).permute(0, 2, 3, 1)
    return f.grid_sample(x, places, padding_mode="border", align_corners=False)


def _blurred(x: Tensor, most: float) -> Tensor:
    side = int(torch.randint(round(COARSEST / most), x.shape[-1] + 1, ()))
    soft = f.interpolate(f.interpolate(x, size=(side, side), mode="area"), size=x.shape[-2:], mode="bilinear")
    return x.lerp(soft, (0.5 + 0.5 * _field(x, 1, 5)).clamp(0, 1))


def _blotched(x: Tensor, most: float) -> Tensor:
    x = x * (1 + 0.06 * torch.randn(len(x), 1, 1, 1)) + 0.05 * torch.randn(len(x), 3, 1, 1)
    for cells, spread in BLOTCHED:
        x = x + most * spread * _degree(x) * _field(x, 3, min(cells, x.shape[-1]))
    return x.clamp(-1, 1)
