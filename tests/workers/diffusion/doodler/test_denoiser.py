"""What of a picture counts for the denoiser."""

import pytest

pytest.importorskip("diffusers", reason="training needs the extra diffusion")

import torch

from workers.diffusion.doodler.autoencoder import LATENTS
from workers.diffusion.doodler.data import HEADS
from workers.diffusion.doodler.denoiser import Pupil, emphasis
from workers.diffusion.doodler.text import WIDTH


def shown(cells: int) -> torch.Tensor:
    """A thing of `cells` x `cells` in the middle of 16 x 16."""
    objects = torch.zeros(16, 16, dtype=torch.long)
    at = slice(8 - cells // 2, 8 + cells // 2)
    objects[at, at] = 5
    return objects


def test_half_of_the_loss_falls_on_a_thing_of_any_size_beside_what_every_cell_has() -> None:
    small, large = emphasis(torch.stack([shown(2), shown(12)]))[:, 0]
    for weights, cells in ((small, 4), (large, 14)):
        assert float(weights.mean()) == pytest.approx(1)
        at = slice(8 - cells // 2, 8 + cells // 2)
        assert float(weights[at, at].sum()) / 256 == pytest.approx(0.5 + 0.5 * cells**2 / 256)
        assert float(weights[0, 0]) == 0.5


def test_a_picture_of_nothing_has_no_weight_without_bounds() -> None:
    (nothing,) = emphasis(shown(0)[None])
    assert float(nothing.max()) == 0.5


def test_what_a_pupil_says_of_the_cells_teaches_the_denoiser_and_not_its_last_block() -> None:
    torch.manual_seed(0)
    pupil = Pupil()
    noisy, text = torch.randn(2, LATENTS, 16, 16), torch.randn(2, 32, WIDTH)
    velocity, (objects, colours) = pupil(noisy, torch.tensor([900, 100]), text)
    assert velocity.shape == noisy.shape
    assert objects.shape == (2, len(HEADS["object2"]), 16, 16)
    assert colours.shape == (2, len(HEADS["colour2"]), 16, 16)
    objects.square().mean().backward()
    *others, last = pupil.unet.up_blocks
    assert all(p.grad is None for p in last.parameters())
    assert all(float(p.grad.abs().max()) > 0 for block in others for p in block.parameters() if p.grad is not None)
    assert any(p.grad is not None for block in others for p in block.parameters())
