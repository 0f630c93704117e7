"""Previews: what they look like, how small they are, how often they come."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from workers.diffusion import offline
from workers.diffusion.preview import BYTES_MAX, SIDE, Pace, fitted, jpeg

offline.libraries()
import torch  # noqa: E402


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_step_is_shown_and_then_one_each_half_second() -> None:
    clock = Clock()
    pace = Pace(0.5, clock)
    assert pace.due()
    pace.spent(0.001)
    clock.now += 0.4
    assert not pace.due()
    clock.now += 0.2
    assert pace.due()


def test_dear_previews_come_rarely_enough_to_cost_a_twentieth() -> None:
    clock = Clock()
    pace = Pace(0.5, clock)
    pace.spent(0.2)
    clock.now += 3.9
    assert not pace.due()
    clock.now += 0.2
    assert pace.due()


def test_zero_means_every_step() -> None:
    pace = Pace(0.0, Clock())
    pace.spent(5.0)
    assert pace.due()


def encode(picture: torch.Tensor) -> torch.Tensor:
    """An encoder of factor 8 with 4 channels, almost linear."""
    small = torch.nn.functional.avg_pool2d(picture, 8)
    mixed = torch.tensor([[1.0, 0.2, -0.5], [0.3, -1.0, 0.4], [-0.2, 0.6, 0.9], [0.5, 0.5, 0.5]])
    return torch.einsum("kc,bchw->bkhw", mixed, small) * 3 + 0.3


def test_colours_are_found_again_by_a_linear_map() -> None:
    sketch = fitted(encode, 8)
    picture = torch.zeros(1, 3, 64, 128)
    picture[:, 0, :, :64] = 1.0
    picture[:, 2, :, 64:] = 1.0
    shown = sketch(encode(picture * 2 - 1)[0])
    assert shown.shape == (3, 8, 16)
    assert torch.allclose(shown[:, 4, 4], torch.tensor([1.0, 0, 0]), atol=0.05)
    assert torch.allclose(shown[:, 4, 12], torch.tensor([0.0, 0, 1]), atol=0.05)


def test_noise_is_scaled_down_to_colours() -> None:
    sketch = fitted(encode, 8)
    loud = sketch(torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(0)) * 15)
    assert 0.15 < float(loud.mean()) < 0.85
    assert float(((loud > 0) & (loud < 1)).float().mean()) > 0.4, "most of it would be black and white"


@pytest.mark.parametrize("size", [(512, 512), (2048, 16), (16, 2048), (768, 512), (64, 64)])
def test_a_preview_is_small_whatever_the_picture(size: tuple[int, int]) -> None:
    noise = torch.rand(3, max(1, size[1] // 8), max(1, size[0] // 8), generator=torch.Generator().manual_seed(0))
    data = jpeg(noise, size)
    assert 0 < len(data) <= BYTES_MAX
    with Image.open(io.BytesIO(data)) as opened:
        assert max(opened.size) == min(SIDE, max(size))
        assert np.asarray(opened).std() > 1


def test_values_that_are_no_numbers_give_no_preview() -> None:
    assert jpeg(torch.full((3, 8, 8), float("nan")), (64, 64)) == b""
