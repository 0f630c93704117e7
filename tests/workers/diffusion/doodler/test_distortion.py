"""Drawings made imperfect for the judge."""

import pytest

pytest.importorskip("torch", reason="drawing needs the extra diffusion")

import torch

from workers.diffusion.doodler.distortion import distorted


def halves(n: int = 32, side: int = 96) -> torch.Tensor:
    """Pictures whose left half is dark and whose right half is bright."""
    x = torch.full((n, 3, side, side), -0.8)
    x[..., side // 2 :] = 0.8
    return x


def test_each_picture_is_distorted_in_its_own_way_and_stays_what_it_is() -> None:
    torch.manual_seed(1)
    x = halves()
    made = distorted(x)
    assert made.shape == x.shape
    assert float(made.abs().max()) <= 1
    assert float((made[:-1] - made[1:]).abs().mean(dim=(1, 2, 3)).min()) > 0.02
    assert bool((made[..., :24].mean(dim=(1, 2, 3)) < made[..., -24:].mean(dim=(1, 2, 3)) - 0.8).all())


def test_edges_are_bent() -> None:
    torch.manual_seed(1)
    edges = (distorted(halves()).mean(1) > 0).float().sum(2)  # how many pixels of each row are bright
    assert float(edges.std(1).mean()) > 1


def test_small_pictures_are_taken_too() -> None:
    assert distorted(torch.zeros(2, 3, 24, 24)).shape == (2, 3, 24, 24)
