"""What of a picture counts for the denoiser."""

import pytest

pytest.importorskip("diffusers", reason="training needs the extra diffusion")

import torch

from workers.diffusion.doodler.denoiser import emphasis


def picture(half: int) -> torch.Tensor:
    """A thing of 2 x `half` pixels in the middle of 64."""
    drawn = torch.full((64, 64, 3), 200, dtype=torch.uint8)
    drawn[32 - half : 32 + half, 32 - half : 32 + half] = torch.tensor((30, 90, 10), dtype=torch.uint8)
    return drawn


def test_half_of_the_loss_falls_on_a_thing_of_any_size_beside_what_every_cell_has() -> None:
    small, large = emphasis(torch.stack([picture(4), picture(24)]))[:, 0]
    for weights, cells in ((small, 4), (large, 14)):
        assert float(weights.mean()) == pytest.approx(1)
        at = slice(8 - cells // 2, 8 + cells // 2)
        assert float(weights[at, at].sum()) / 256 == pytest.approx(0.5 + 0.5 * cells**2 / 256)
        assert float(weights[0, 0]) == 0.5


def test_a_picture_of_nothing_has_no_weight_without_bounds() -> None:
    (nothing,) = emphasis(torch.full((1, 64, 64, 3), 7, dtype=torch.uint8))
    assert float(nothing.max()) == 0.5
