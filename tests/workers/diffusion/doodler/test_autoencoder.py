"""How the autoencoder starts: as a linear pyramid, so that colours are there from the first step."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers", reason="needs the extra diffusion")
pytest.importorskip("resvg_py", reason="drawing needs resvg-py (pip install resvg-py)")

import torch
from torch.nn import functional as f

from workers.diffusion.doodler import autoencoder, data
from workers.diffusion.doodler.render import rendered

SEEDS = range(900, 908)


def pictures(side: int) -> torch.Tensor:
    return autoencoder.scaled(torch.from_numpy(rendered(SEEDS, side)))


@pytest.fixture(scope="module")
def inner() -> autoencoder.AutoencoderKL:
    torch.manual_seed(0)
    module = autoencoder.build(autoencoder.INNER, data.SIDE)
    autoencoder.start(module, pictures(data.SIDE))
    return module.eval()


@torch.no_grad()
def test_the_first_latents_are_the_mean_colours_of_their_cells(inner: autoencoder.AutoencoderKL) -> None:
    x = pictures(data.SIDE)
    means = f.adaptive_avg_pool2d(x, (16, 16))
    found = inner.encode(x).latent_dist.mean
    assert (found[:, :3] - means).abs().mean() < 0.25 * means.abs().mean()
    assert torch.corrcoef(torch.stack((found[:, 3].flatten(), _across(x)[:, 0].flatten())))[0, 1] > 0.95


def _across(x: torch.Tensor) -> torch.Tensor:
    """Right half minus left half of the four pixels (of half the size) that a cell has."""
    half = f.avg_pool2d(x, 2)
    return f.avg_pool2d(half, (2, 1))[..., 1::2] - f.avg_pool2d(half, (2, 1))[..., ::2]


@torch.no_grad()
def test_untrained_it_draws_the_colours(inner: autoencoder.AutoencoderKL) -> None:
    x = pictures(data.SIDE)
    got = inner.decode(inner.encode(x).latent_dist.mean).sample
    assert (got - x).abs().mean() < 0.15
    chance = autoencoder.build(autoencoder.INNER, data.SIDE).eval()
    assert (chance.decode(chance.encode(x).latent_dist.mean).sample - x).abs().mean() > 0.4


@torch.no_grad()
def test_the_large_one_begins_with_what_the_small_one_knows(inner: autoencoder.AutoencoderKL) -> None:
    large = autoencoder.grown(inner, pictures(512)[:4]).eval()
    z = inner.encode(pictures(data.SIDE)[:4]).latent_dist.mean
    small = inner.decode(z).sample
    assert torch.allclose(large.decode(z).sample, f.interpolate(small, scale_factor=8), atol=1e-4)
    found = large.encode(pictures(512)[:4]).latent_dist.mean
    assert (found - z).abs().mean() < 0.1 * z.abs().mean()
